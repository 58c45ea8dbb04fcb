package check

import (
	"context"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/cell/form"
)

// checkNATS asks the server about the stream and the subjects of the tables that the subscription gets.
func checkNATS(ctx context.Context, cfg *config.Config, name, place string) []pipeline.Finding {
	sub := cfg.Subscriptions[name]
	sink, err := parts.NATS(name, sub, parts.Encoding(sub, cfg.PublicURL, form.Of))
	if err != nil {
		return []pipeline.Finding{finding("error", "nats", place, err.Error(), "")}
	}
	defer sink.Close()
	return placed(sink.Check(ctx, tablesOf(ctx, cfg, sub)), place)
}
