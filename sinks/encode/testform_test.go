package encode

import (
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

func number(n int64) cell.Value {
	return cell.Value{Kind: schemas.KindInt, Bits: 32, N: uint64(n)}
}
func text(s string) cell.Value                    { return cell.Value{Kind: schemas.KindText, B: []byte(s)} }
func bytesOf(k schemas.Kind, s string) cell.Value { return cell.Value{Kind: k, B: []byte(s)} }
func numeric(k schemas.Kind, n int64) cell.Value  { return cell.Value{Kind: k, Bits: 64, N: uint64(n)} }
func float(f float64, bits uint8) cell.Value {
	var v cell.Value
	v.SetFloat(f, bits)
	return v
}

// table has the columns id, ns (the routing key) and v.
func table(columns ...string) *schemas.Table {
	t := &schemas.Table{ID: 4, Version: 2, Schema: "public", Name: "files", Wire: schemas.WirePGText, Identity: []int{0}, Routing: []int{1}}
	for _, c := range append([]string{"id", "ns"}, columns...) {
		t.Columns = append(t.Columns, schemas.Column{Name: c})
	}
	return t.Seal()
}
