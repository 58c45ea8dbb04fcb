package encode

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"unsafe"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// What Mapping.Cast may say, in the words of JSON Schema.
const (
	CastString  = "string"
	CastInteger = "integer" // of 64 bits, signed
	CastNumber  = "number"  // a float of 64 bits
	CastBoolean = "boolean"
)

// What Mapping.Mask may say.
const (
	// MaskHash: HMAC-SHA-256 of the value's text, keyed with the salt, in hex. Equal values stay equal.
	MaskHash = "hash"
	// MaskRedact: NULL.
	MaskRedact = "redact"
)

var (
	errNotInteger = errors.New("the value is no integer of 64 bits")
	errNotNumber  = errors.New("the value is no number")
	errNotBoolean = errors.New("the value is neither true nor false")
)

func (c *Column) cast(to string) error {
	decode, was := c.Decode, c.Type
	c.Plain, c.Mapped = cell.PlainNone, true
	var convert func(v *cell.Value, text []byte) error
	switch to {
	case CastString:
		c.Type = schemas.Type{Kind: schemas.KindText, Name: "text"}
		convert = func(v *cell.Value, text []byte) error {
			*v = cell.Value{Kind: schemas.KindText, B: text}
			return nil
		}
	case CastInteger:
		c.Type = schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint"}
		convert = toInteger
	case CastNumber:
		c.Type = schemas.Type{Kind: schemas.KindFloat, Bits: 64, Name: "double precision"}
		convert = func(v *cell.Value, text []byte) error {
			f, err := strconv.ParseFloat(alias(text), 64)
			if err != nil {
				return errNotNumber
			}
			*v = cell.Value{}
			v.SetFloat(f, 64)
			return nil
		}
	case CastBoolean:
		c.Type = schemas.Type{Kind: schemas.KindBool, Name: "boolean"}
		convert = toBoolean
	default:
		return fmt.Errorf("a column cannot be cast to %q: use string, integer, number or boolean", to)
	}
	if was.Kind == c.Type.Kind && was.Bits == c.Type.Bits {
		convert = nil
	}
	c.Decode = func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		if err := decode(v, raw, s); err != nil || v.State != cell.Present || convert == nil {
			return err
		}
		text, err := TextOf(v, s)
		if err != nil {
			return err
		}
		return convert(v, text)
	}
	return nil
}

func toInteger(v *cell.Value, text []byte) error {
	if v.Kind == schemas.KindBool {
		*v = cell.Value{Kind: schemas.KindInt, Bits: 64, N: v.N}
		return nil
	}
	n, err := strconv.ParseInt(alias(text), 10, 64)
	if err != nil {
		return errNotInteger
	}
	*v = cell.Value{Kind: schemas.KindInt, Bits: 64, N: uint64(n)}
	return nil
}

func toBoolean(v *cell.Value, text []byte) error {
	n := uint64(0)
	switch string(text) {
	case "true", "t", "1":
		n = 1
	case "false", "f", "0":
	default:
		return errNotBoolean
	}
	*v = cell.Value{Kind: schemas.KindBool, N: n}
	return nil
}

func alias(p []byte) string { return unsafe.String(unsafe.SliceData(p), len(p)) }

func (c *Column) mask(how, salt string, key bool) error {
	decode := c.Decode
	c.Plain, c.Mapped = cell.PlainNone, true
	switch how {
	case MaskRedact:
		if key {
			return fmt.Errorf("column %q is part of a key and cannot be redacted: hash it", c.Name)
		}
		c.Nullable = true
		c.Decode = func(v *cell.Value, _ []byte, _ *cell.Scratch) error {
			*v = cell.Value{State: cell.Null}
			return nil
		}
	case MaskHash:
		if salt == "" {
			return fmt.Errorf("column %q is to be hashed, but there is no salt", c.Name)
		}
		c.Type = schemas.Type{Kind: schemas.KindText, Name: "text"}
		secret := []byte(salt)
		c.Decode = func(v *cell.Value, raw []byte, s *cell.Scratch) error {
			if err := decode(v, raw, s); err != nil || v.State != cell.Present {
				return err
			}
			text, err := TextOf(v, s)
			if err != nil {
				return err
			}
			h := hmac.New(sha256.New, secret)
			h.Write(text)
			from := len(s.Buf)
			s.Buf = hex.AppendEncode(s.Buf, h.Sum(nil))
			*v = cell.Value{Kind: schemas.KindText, B: s.Buf[from:len(s.Buf):len(s.Buf)]}
			return nil
		}
	default:
		return fmt.Errorf("column %q cannot be masked by %q: use hash or redact", c.Name, how)
	}
	return nil
}

// constant is a column that is the same in every row.
func constant(name string, value any) (Column, error) {
	c := Column{Index: -1, Name: name}
	var v cell.Value
	switch x := value.(type) {
	case string:
		c.Type, v = schemas.Type{Kind: schemas.KindText, Name: "text"}, cell.Value{Kind: schemas.KindText, B: []byte(x)}
	case bool:
		c.Type, v = schemas.Type{Kind: schemas.KindBool, Name: "boolean"}, cell.Value{Kind: schemas.KindBool}
		if x {
			v.N = 1
		}
	case int64:
		c.Type, v = schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint"}, cell.Value{Kind: schemas.KindInt, Bits: 64, N: uint64(x)}
	case float64:
		c.Type = schemas.Type{Kind: schemas.KindFloat, Bits: 64, Name: "double precision"}
		v.SetFloat(x, 64)
	default:
		return c, fmt.Errorf("constant %q is neither text, number nor boolean", name)
	}
	c.Decode = func(out *cell.Value, _ []byte, _ *cell.Scratch) error {
		*out = v
		return nil
	}
	return c, nil
}

// writers write values as JSON does.
var writers = sync.Pool{New: func() any { return &state{e: &Encoder{json: true}} }}

// TextOf is a value as text: what JSON has between the quotes, without escapes. It may lie in s.
func TextOf(v *cell.Value, s *cell.Scratch) ([]byte, error) {
	switch v.Kind {
	case schemas.KindText, schemas.KindUnknown, schemas.KindDecimal, schemas.KindBits, schemas.KindJSON:
		return v.B, nil
	}
	st := writers.Get().(*state)
	defer writers.Put(st)
	from := len(s.Buf)
	out, err := st.jsonValue(s.Buf, v, 0)
	if err != nil {
		return nil, err
	}
	s.Buf = out
	text := out[from:len(out):len(out)]
	if n := len(text); n >= 2 && text[0] == '"' {
		text = text[1 : n-1]
	}
	return text, nil
}

// AppendString appends p as a JSON string.
func AppendString(dst, p []byte) ([]byte, error) {
	out, ok := appendEscaped(append(dst, '"'), p)
	if !ok {
		return dst, errUTF8
	}
	return append(out, '"'), nil
}
