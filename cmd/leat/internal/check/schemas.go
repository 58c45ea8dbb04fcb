package check

import (
	"context"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/registry"
	"github.com/leat-cdc/leat/schemas/registry/compat"
)

// checkRegistry asks the registry that the file names whether it is there and lets us in.
func checkRegistry(ctx context.Context, cfg *config.Config) []pipeline.Finding {
	r, err := parts.Registry(cfg, nil)
	if c, ok := r.(*registry.Client); err == nil && ok {
		defer c.Close()
		err = c.Ping(ctx)
	}
	if err != nil {
		return []pipeline.Finding{finding("error", "registry", "registry", err.Error(),
			"check registry.url: what stands before /subjects; until it answers, table versions that have no schema there yet wait")}
	}
	return nil
}

// checkContract reads the contract of a subscription.
func checkContract(place string, sub *config.Subscription) []pipeline.Finding {
	c, err := parts.Contract(sub)
	if err == nil && c != nil {
		var text string
		if text, err = c.Read(); err == nil {
			err = compat.Valid(c.Format, text)
		}
	}
	if err != nil {
		return []pipeline.Finding{finding("error", "contract", place+".contract", err.Error(), "put right the file; until then nothing of the subscription is sent")}
	}
	return nil
}
