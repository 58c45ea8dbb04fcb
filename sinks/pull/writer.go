package pull

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// writer sends a stream's events. In protobuf they go past connect, as they stand on the wire, several messages in
// one write: connect would copy each twice more and send the five bytes before it as an HTTP/2 frame of its own.
type writer struct {
	s      *Sink
	stream *pullStream
	events *leatv1.Events // of the message in work, without its events
	g      grant
	asJSON bool
	err    error // of add

	// direct and flush are nil where messages go through the stream.
	direct http.ResponseWriter
	flush  func() error
	out    []byte // messages that wait for send; of a stream's one message its raw events
	memory *[]byte
	head   []byte
	waits  bool // a message for the stream
}

// oneWrite is how many bytes are gathered for one write, when there are that many.
const oneWrite = 256 << 10

// outs holds the memory of messages between sends: what another stream has just written is warm, and a stream that
// waits holds none.
var outs = sync.Pool{New: func() any { return new([]byte) }}

// writerKey is the key of the http.ResponseWriter in a Pull's context.
type writerKey struct{}

// exposeWriter hands the response of each Pull to its handler.
func exposeWriter(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/Pull") {
			r = r.WithContext(context.WithValue(r.Context(), writerKey{}, w))
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Sink) writer(ctx context.Context, stream *pullStream) *writer {
	w := &writer{s: s, stream: stream, events: &leatv1.Events{Epoch: s.epoch, Source: s.o.Source}}
	switch kind := stream.RequestHeader().Get("Content-Type"); kind {
	case "application/connect+proto", "application/grpc", "application/grpc+proto", "application/grpc-web", "application/grpc-web+proto":
		if direct, ok := ctx.Value(writerKey{}).(http.ResponseWriter); ok {
			w.direct, w.flush = direct, http.NewResponseController(direct).Flush
		}
	default:
		w.asJSON = strings.Contains(kind, "json")
	}
	return w
}

// sent gives the memory back.
func (w *writer) sent() {
	*w.memory = w.out
	if cap(w.out) <= 2*mostBytes { // a huge event's is not kept
		outs.Put(w.memory)
	}
	w.out, w.memory, w.waits = nil, nil, false
}

// full says whether what add added is enough for one send.
func (w *writer) full() bool { return w.waits || w.err != nil || len(w.out) >= oneWrite }

// add takes over what g grants. Called with mu held.
func (w *writer) add() {
	if w.memory == nil {
		w.memory = outs.Get().(*[]byte)
		w.out = (*w.memory)[:0]
	}
	if w.direct == nil {
		w.out, w.waits = w.g.copyTo(w.out), true
		return
	}
	w.s.head(w.events, &w.g)
	if w.head, w.err = (proto.MarshalOptions{}).MarshalAppend(w.head[:0], w.events); w.err != nil {
		return
	}
	// A PullResponse of one field, events. Before it, in Connect as in gRPC, a byte of flags (none) and the length.
	const tag = 1<<3 | byte(protowire.BytesType)
	body := uint64(len(w.head) + w.g.size)
	w.out = binary.BigEndian.AppendUint32(append(w.out, 0), uint32(1+protowire.SizeVarint(body))+uint32(body))
	w.out = append(protowire.AppendVarint(append(w.out, tag), body), w.head...)
	w.out = w.g.copyTo(w.out)
}

// send sends what was added; it reports false when there was nothing.
func (w *writer) send() (bool, error) {
	if w.err != nil {
		return false, connect.NewError(connect.CodeInternal, fmt.Errorf("encode a message of events: %w", w.err))
	}
	if len(w.out) == 0 && !w.waits {
		return false, nil
	}
	defer w.sent()
	if w.direct == nil {
		if err := w.s.fill(w.events, &w.g, w.out, w.asJSON); err != nil {
			return false, err
		}
		return true, w.stream.Send(&leatv1.PullResponse{Message: &leatv1.PullResponse_Events{Events: w.events}})
	}
	if _, err := w.direct.Write(w.out); err != nil {
		return false, connect.NewError(connect.CodeUnavailable, fmt.Errorf("send events: %w", err))
	}
	return true, w.flush()
}
