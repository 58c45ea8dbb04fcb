package cli_test

import (
	"context"
	"fmt"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Verify finds a missing and a different row in public.files, unless another table is named.
func (b *backend) Verify(_ context.Context, r *leatv1.VerifyRequest, send func(*leatv1.VerifyResponse) error) error {
	if r.Subscription == "nosuch" {
		return api.Errorf(api.NotFound, "no subscription %q", r.Subscription)
	}
	if r.Target == "http://x" {
		return api.Errorf(api.Invalid, "the target is http://, the source is another kind of database: only tables of the same kind are compared")
	}
	for _, phase := range []string{"log", "source", "again"} {
		if err := send(&leatv1.VerifyResponse{What: &leatv1.VerifyResponse_Progress{Progress: &leatv1.VerifyProgress{Table: "public.files", Phase: phase, Done: 50, Rows: 100}}}); err != nil {
			return err
		}
	}
	t := &leatv1.VerifiedTable{Table: "public.files", Rows: 1200, Compared: 1100, BeyondRetention: 90, Absent: 10,
		Ranges: []*leatv1.VerifiedRange{{Range: 0, SourceRows: 1110, OtherRows: 1110, SourceSum: "a", OtherSum: "a"}}}
	if len(r.Tables) == 0 {
		t.Compared, t.Different = 1098, 2
		t.Differences = []*leatv1.VerifiedRow{{Key: `{"id":7}`, Kind: "missing"}, {Key: `{"id":8}`, Kind: "different", Columns: []string{"path", "size"}}}
		t.Repair = []string{fmt.Sprintf("(%q = 7) OR (%q = 8)", "id", "id")}
		t.Repaired = 2
	}
	return send(&leatv1.VerifyResponse{What: &leatv1.VerifyResponse_Report{Report: &leatv1.VerifyReport{Tables: []*leatv1.VerifiedTable{t}}}})
}
