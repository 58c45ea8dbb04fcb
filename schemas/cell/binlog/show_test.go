package binlog_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// show prints a value as the server would (see typeCase.show).
func show(v *cell.Value, ty *schemas.Type) string {
	switch v.State {
	case cell.Null:
		return null
	case cell.Absent:
		return "<ABSENT>"
	}
	switch v.Kind {
	case schemas.KindBool, schemas.KindUint:
		return strconv.FormatUint(v.N, 10)
	case schemas.KindInt:
		return strconv.FormatInt(int64(v.N), 10)
	case schemas.KindFloat:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case schemas.KindBytes:
		if ty.Code == 255 {
			return fmt.Sprintf("%X", stored(v.B))
		}
		return fmt.Sprintf("%X", v.B)
	case schemas.KindVector:
		var b []byte
		for i := range v.Elems {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v.Elems[i].Float())))
		}
		return fmt.Sprintf("%X", b)
	case schemas.KindDate:
		return time.Unix(int64(v.N)*86400, 0).UTC().Format("2006-01-02")
	case schemas.KindDateTime, schemas.KindTimestamp:
		return cut(time.UnixMicro(int64(v.N)).UTC().Format("2006-01-02 15:04:05.000000"), ty)
	case schemas.KindTime:
		n, sign := int64(v.N), ""
		if n < 0 {
			n, sign = -n, "-"
		}
		sec := n / 1e6
		return sign + cut(fmt.Sprintf("%02d:%02d:%02d.%06d", sec/3600, sec/60%60, sec%60, n%1e6), ty)
	}
	return string(v.B)
}

// cut leaves as many digits of the fraction as the type has; what is cut must be zero.
func cut(s string, ty *schemas.Type) string {
	whole, frac, _ := strings.Cut(s, ".")
	keep := int(ty.Length)
	if strings.Trim(frac[keep:], "0") != "" {
		return s + " (has more digits than its type)"
	}
	if keep == 0 {
		return whole
	}
	return whole + "." + frac[:keep]
}

// stored turns EWKB into what the servers store.
func stored(b []byte) []byte {
	if len(b) == 0 {
		return b
	}
	kind := binary.LittleEndian.Uint32(b[1:])
	if kind&0x20000000 == 0 {
		return append(make([]byte, 4), b...)
	}
	out := append([]byte(nil), b[5:9]...)
	out = append(out, 1)
	out = binary.LittleEndian.AppendUint32(out, kind&^0x20000000)
	return append(out, b[9:]...)
}

// read decodes all cells of an image.
func read(t testing.TB, f *cell.Form, table *schemas.Table, image []byte) ([]string, []error) {
	t.Helper()
	refs, err := f.Walk(image, nil, len(table.Columns))
	check(t, err)
	var s cell.Scratch
	out, errs := make([]string, len(refs)), make([]error, len(refs))
	for i, r := range refs {
		var v cell.Value
		switch {
		case r.Null():
			v.State = cell.Null
		case r.Absent():
			v.State = cell.Absent
		default:
			errs[i] = f.Decode[i](&v, r.Of(image), &s)
		}
		out[i] = show(&v, &table.Columns[i].Type)
	}
	return out, errs
}
