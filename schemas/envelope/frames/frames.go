// Package frames reads the events of a pull stream without decoding each: for clients that pass them on,
// count them, or decode only some. Decoding leat.v1.Event costs a Go client several times what sending it cost.
//
// A client made with connect.WithCodec(frames.Codec{}) finds Events.events empty; the events stand, undecoded,
// where Raw finds them.
package frames

import (
	"errors"
	"fmt"
	"iter"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Codec is a connect.Codec: protobuf, but the events of Events stay as they are.
type Codec struct{}

var errFrame = errors.New("the message is not well-formed protobuf")

// Numbers of the fields that are taken apart here.
const (
	pullEvents    = 1 // PullResponse.events
	receiveEvents = 1 // ReceiveResponse.events
	eventsEvents  = 1 // Events.events
)

// Name implements connect.Codec.
func (Codec) Name() string { return "proto" }

// Marshal implements connect.Codec.
func (Codec) Marshal(m any) ([]byte, error) {
	p, ok := m.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("marshal %T: no protobuf message", m)
	}
	return proto.Marshal(p)
}

// Unmarshal implements connect.Codec. It keeps nothing of data.
func (Codec) Unmarshal(data []byte, m any) error {
	switch m := m.(type) {
	case *leatv1.PullResponse:
		rest, inner, ok, err := cut(data, pullEvents)
		if err != nil || !ok {
			return errors.Join(err, proto.Unmarshal(data, m))
		}
		e, err := events(inner)
		if err != nil {
			return err
		}
		if err := proto.Unmarshal(rest, m); err != nil {
			return err
		}
		m.Message = &leatv1.PullResponse_Events{Events: e}
		return nil
	case *leatv1.ReceiveResponse:
		rest, inner, ok, err := cut(data, receiveEvents)
		if err != nil || !ok {
			return errors.Join(err, proto.Unmarshal(data, m))
		}
		if err := proto.Unmarshal(rest, m); err != nil {
			return err
		}
		m.Events, err = events(inner)
		return err
	case proto.Message:
		return proto.Unmarshal(data, m)
	}
	return fmt.Errorf("unmarshal into %T: no protobuf message", m)
}

// cut takes the first field of that number, a message, out of data.
func cut(data []byte, number protowire.Number) (rest, inner []byte, ok bool, err error) {
	for at := 0; at < len(data); {
		n, kind, tag := protowire.ConsumeTag(data[at:])
		if tag < 0 {
			return nil, nil, false, errFrame
		}
		size := protowire.ConsumeFieldValue(n, kind, data[at+tag:])
		if size < 0 {
			return nil, nil, false, errFrame
		}
		if n == number && kind == protowire.BytesType {
			inner, _ = protowire.ConsumeBytes(data[at+tag:])
			return append(data[:at:at], data[at+tag+size:]...), inner, true, nil
		}
		at += tag + size
	}
	return data, nil, false, nil
}

// events decodes everything of an Events but the events.
func events(data []byte) (*leatv1.Events, error) {
	var head, raw []byte
	for at := 0; at < len(data); {
		n, kind, tag := protowire.ConsumeTag(data[at:])
		if tag < 0 {
			return nil, errFrame
		}
		size := protowire.ConsumeFieldValue(n, kind, data[at+tag:])
		if size < 0 {
			return nil, errFrame
		}
		field := data[at : at+tag+size]
		if n == eventsEvents && kind == protowire.BytesType {
			if raw == nil {
				raw = memory(len(data) - at)
			}
			raw = append(raw, field...)
		} else {
			head = append(head, field...)
		}
		at += tag + size
	}
	out := &leatv1.Events{}
	if err := proto.Unmarshal(head, out); err != nil {
		return nil, err
	}
	// In front: what is new to this client stays behind.
	out.ProtoReflect().SetUnknown(append(raw, out.ProtoReflect().GetUnknown()...))
	return out, nil
}

// spare holds what Release gave back.
var spare sync.Pool

// memory returns room for n bytes.
func memory(n int) []byte {
	if p, _ := spare.Get().(*[]byte); p != nil && cap(*p) >= n {
		return (*p)[:0]
	}
	return make([]byte, 0, n)
}

// Release gives the memory of a message's events to the messages that come after it: without it each takes fresh
// memory, a fifth of what such a client costs. Optional; what Raw returned must not be used any more.
func Release(e *leatv1.Events) {
	if raw := []byte(e.ProtoReflect().GetUnknown()); cap(raw) > 0 {
		e.ProtoReflect().SetUnknown(nil)
		raw = raw[:0]
		spare.Put(&raw)
	}
}

// Raw returns the events of a message that Codec decoded, each as the bytes of a leat.v1.Event, in order.
// They alias the message.
func Raw(e *leatv1.Events) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		data := e.ProtoReflect().GetUnknown()
		for len(data) > 0 {
			n, kind, tag := protowire.ConsumeTag(data)
			if tag < 0 {
				return
			}
			size := protowire.ConsumeFieldValue(n, kind, data[tag:])
			if size < 0 {
				return
			}
			if n == eventsEvents && kind == protowire.BytesType {
				event, _ := protowire.ConsumeBytes(data[tag:])
				if !yield(event) {
					return
				}
			}
			data = data[tag+size:]
		}
	}
}
