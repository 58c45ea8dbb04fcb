package client

import (
	"testing"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Stamp is embedded by pointer.
type Stamp struct {
	By string `leat:"by"`
}

// An embedded struct that is not there is made when there is a value for it.
func TestScanIntoEmbeddedPointer(t *testing.T) {
	var to struct{ *Stamp }
	row := func(v *leatv1.Value) Row {
		return Row{columns: []*leatv1.Column{{Name: "by"}}, index: map[string]int{"by": 0}, values: []*leatv1.Value{v}}
	}
	null := row(&leatv1.Value{Kind: &leatv1.Value_Null{}})
	if err := null.Scan(&to); err != nil || to.Stamp != nil {
		t.Errorf("null: %v %v", to.Stamp, err)
	}
	if err := row(&leatv1.Value{Kind: &leatv1.Value_Text{Text: "ann"}}).Scan(&to); err != nil || to.Stamp == nil || to.By != "ann" {
		t.Errorf("%v %v", to.Stamp, err)
	}
	if err := null.Scan(&to); err != nil || to.By != "" {
		t.Errorf("null again: %v %v", to.Stamp, err)
	}
}
