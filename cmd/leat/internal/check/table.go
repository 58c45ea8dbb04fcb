package check

import (
	"context"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/schemas/cell/form"
	"github.com/leat-cdc/leat/sinks/table"
)

// checkTable looks at the target, and at the tables there that the subscription writes to.
func checkTable(ctx context.Context, cfg *config.Config, place string, sub *config.Subscription) (found []pipeline.Finding) {
	sink, err := table.New(parts.TableSink(sub, form.Of))
	if err != nil {
		return []pipeline.Finding{finding("error", "target", place, err.Error(), "")}
	}
	defer sink.Close()
	var asked []table.Asked
	if in, err := filter.ParseTables(sub.Tables); err == nil && cfg.Sources[sub.Source] != nil {
		all, _ := parts.Tables(ctx, sub.Source, cfg.Sources[sub.Source]) // the source's check tells of an error
		for _, t := range all {
			if !in.Match(t.Schema, t.Name) {
				continue
			}
			a := table.Asked{Schema: t.Schema, Name: t.Name}
			if len(sub.Columns) == 0 && len(sub.Mapping) == 0 { // else the rows' own shape says what is sent
				a.Columns = t.Columns
			}
			asked = append(asked, a)
		}
	}
	for _, f := range sink.Check(ctx, asked) {
		f.Place = strings.TrimSuffix(place+": "+f.Place, ": ")
		found = append(found, f)
	}
	return found
}
