package check

import (
	"context"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/form"
)

// checkKafka asks the cluster about the topics of the tables that the subscription gets.
func checkKafka(ctx context.Context, cfg *config.Config, name, place string) []pipeline.Finding {
	sub := cfg.Subscriptions[name]
	plain, k := *sub, *sub.Deliver.Kafka
	k.Encoding, plain.Deliver.Kafka = "json", &k // nothing is encoded
	sink, err := parts.Kafka(name, &plain, parts.Encoding(sub, cfg.PublicURL, form.Of), nil, nil)
	if err != nil {
		return []pipeline.Finding{finding("error", "kafka", place, err.Error(), "")}
	}
	defer sink.Close()
	return placed(sink.Check(ctx, tablesOf(ctx, cfg, sub)), place)
}

// tablesOf are the names of the tables that the subscription gets, as far as the database tells them.
func tablesOf(ctx context.Context, cfg *config.Config, sub *config.Subscription) (tables []*schemas.Table) {
	if in, err := filter.ParseTables(sub.Tables); err == nil && cfg.Sources[sub.Source] != nil {
		all, _ := parts.Tables(ctx, sub.Source, cfg.Sources[sub.Source]) // the source's check tells of an error
		for _, t := range all {
			if in.Match(t.Schema, t.Name) {
				tables = append(tables, &schemas.Table{Schema: t.Schema, Name: t.Name})
			}
		}
	}
	return tables
}

// placed gives all findings one place.
func placed(found []pipeline.Finding, place string) []pipeline.Finding {
	for i := range found {
		found[i].Place = place
	}
	return found
}
