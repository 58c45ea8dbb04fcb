package compat

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const protobufName = "schema.proto"

// protobufFile compiles one .proto file; what it imports can only be Google's well-known types.
func protobufFile(text string) (protoreflect.FileDescriptor, error) {
	c := protocompile.Compiler{MaxParallelism: 1, Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: func(path string) (io.ReadCloser, error) {
			if path == protobufName {
				return io.NopCloser(strings.NewReader(text)), nil
			}
			return nil, fmt.Errorf("%s is not there: only google/protobuf/… can be imported", path)
		}})}
	files, err := c.Compile(context.Background(), protobufName)
	if err != nil {
		return nil, fmt.Errorf("not a .proto file: %w", err)
	}
	if files[0].Messages().Len() == 0 {
		return nil, errors.New("the .proto file has no message")
	}
	return files[0], nil
}

// SerializedProtobuf returns a .proto file as a descriptor in base64, which some clients ask for.
func SerializedProtobuf(text string) (string, error) {
	f, err := protobufFile(text)
	if err != nil {
		return "", err
	}
	p, err := proto.Marshal(protoutil.ProtoFromFileDescriptor(f))
	if err != nil {
		return "", fmt.Errorf("serialize the .proto file: %w", err)
	}
	return base64.StdEncoding.EncodeToString(p), nil
}

// Numbers returns the numbers of the fields of the message of that name, by field name and type ("path string"), of
// all versions given; a later version wins. What cannot be read is left out.
func Numbers(versions []string, message string) map[string]int {
	numbers := map[string]int{}
	for _, text := range versions {
		f, err := protobufFile(text)
		if err != nil {
			continue
		}
		m := f.Messages().ByName(protoreflect.Name(message))
		if m == nil {
			continue
		}
		for i := range m.Fields().Len() {
			fd := m.Fields().Get(i)
			numbers[string(fd.Name())+" "+protobufType(fd)] = int(fd.Number())
		}
	}
	return numbers
}

func protobufType(f protoreflect.FieldDescriptor) string {
	name := f.Kind().String()
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		name = string(f.Message().FullName())
	case protoreflect.EnumKind:
		name = string(f.Enum().FullName())
	}
	if f.IsList() {
		return "repeated " + name
	}
	return name
}

// protobufReads compares the first message of each file, and what those hold.
func protobufReads(reader, writer string) error {
	r, err := protobufFile(reader)
	if err != nil {
		return err
	}
	w, err := protobufFile(writer)
	if err != nil {
		return err
	}
	return messageReads(r.Messages().Get(0), w.Messages().Get(0), map[[2]protoreflect.FullName]bool{})
}

func messageReads(r, w protoreflect.MessageDescriptor, seen map[[2]protoreflect.FullName]bool) error {
	pair := [2]protoreflect.FullName{r.FullName(), w.FullName()}
	if seen[pair] {
		return nil
	}
	seen[pair] = true
	for i := range r.Fields().Len() {
		rf := r.Fields().Get(i)
		wf := w.Fields().ByNumber(rf.Number())
		if wf == nil {
			if rf.Cardinality() == protoreflect.Required {
				return fmt.Errorf("%s.%s (%d) is required, and what is written lacks it", r.Name(), rf.Name(), rf.Number())
			}
			if other := w.Fields().ByName(rf.Name()); other != nil {
				return fmt.Errorf("%s.%s has the number %d, and %d in what is written", r.Name(), rf.Name(), rf.Number(), other.Number())
			}
			continue
		}
		if err := fieldReads(rf, wf, seen); err != nil {
			return fmt.Errorf("%s.%s (%d): %w", r.Name(), rf.Name(), rf.Number(), err)
		}
	}
	return nil
}

func fieldReads(r, w protoreflect.FieldDescriptor, seen map[[2]protoreflect.FullName]bool) error {
	if r.Name() != w.Name() {
		return fmt.Errorf("it is named %s in what is written", w.Name())
	}
	if r.IsList() != w.IsList() || r.IsMap() != w.IsMap() {
		return fmt.Errorf("it is %s, and %s in what is written", card(r), card(w))
	}
	if r.Cardinality() == protoreflect.Required && w.Cardinality() != protoreflect.Required {
		return errors.New("it is required, and not so in what is written")
	}
	if a, b := family(r.Kind()), family(w.Kind()); a != b || a == 0 && r.Kind() != w.Kind() {
		return fmt.Errorf("it is %s, and %s in what is written", protobufType(r), protobufType(w))
	}
	if narrower(r.Kind(), w.Kind()) {
		return fmt.Errorf("it is %s, which does not hold every %s that is written", r.Kind(), w.Kind())
	}
	if inOneof(r) != inOneof(w) {
		return errors.New("it stands in a oneof in one of them only")
	}
	if r.Kind() == protoreflect.MessageKind || r.Kind() == protoreflect.GroupKind {
		return messageReads(r.Message(), w.Message(), seen)
	}
	return nil
}

func card(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "a map"
	case f.IsList():
		return "repeated"
	}
	return "singular"
}

func inOneof(f protoreflect.FieldDescriptor) bool {
	o := f.ContainingOneof()
	return o != nil && !o.IsSynthetic() && o.Fields().Len() > 1
}

// family groups kinds that read each other's bytes; 0: only itself.
// https://protobuf.dev/programming-guides/proto3/#updating
func family(k protoreflect.Kind) int {
	switch k {
	case protoreflect.Int32Kind, protoreflect.Uint32Kind, protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.BoolKind, protoreflect.EnumKind:
		return 1
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return 2
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		return 3
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		return 4
	case protoreflect.StringKind, protoreflect.BytesKind:
		return 5
	}
	return 0
}

// narrower reports whether values of w may be lost or changed in r, which reads their bytes.
func narrower(r, w protoreflect.Kind) bool {
	type span struct{ signed, bits int }
	spans := map[protoreflect.Kind]span{protoreflect.BoolKind: {0, 1}, protoreflect.Int32Kind: {1, 32}, protoreflect.EnumKind: {1, 32}, protoreflect.Uint32Kind: {0, 32},
		protoreflect.Int64Kind: {1, 64}, protoreflect.Uint64Kind: {0, 64}, protoreflect.Sint32Kind: {1, 32}, protoreflect.Sint64Kind: {1, 64},
		protoreflect.Fixed32Kind: {0, 32}, protoreflect.Sfixed32Kind: {1, 32}, protoreflect.Fixed64Kind: {0, 64}, protoreflect.Sfixed64Kind: {1, 64}}
	a, ok := spans[r]
	b, ok2 := spans[w]
	if !ok || !ok2 {
		return r == protoreflect.StringKind && w == protoreflect.BytesKind // bytes need not be text
	}
	return a.bits-a.signed < b.bits-b.signed || b.signed > a.signed
}

// FirstMessage is the name of the first message of a .proto file; empty when it is none.
func FirstMessage(text string) string {
	f, err := protobufFile(text)
	if err != nil {
		return ""
	}
	return string(f.Messages().Get(0).Name())
}
