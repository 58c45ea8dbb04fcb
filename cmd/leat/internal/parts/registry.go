package parts

import (
	"context"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/registry"
	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

// Embedded opens our own registry.
func Embedded(ctx context.Context, cfg *config.Config, store *state.Store) (*registry.Embedded, error) {
	mode, err := compat.Parse(cfg.Registry.Compatibility)
	if err != nil {
		return nil, cfg.Errorf("registry.compatibility", "%v", err)
	}
	return registry.Open(ctx, schemaStore{store}, mode)
}

// Registry is where the schemas of records get their ids: the one that the file names (a *registry.Client: see
// CloseRegistry), else our own.
func Registry(cfg *config.Config, own *registry.Embedded) (records.Schemas, error) {
	r := cfg.Registry
	u := r.URL.Parsed()
	if u == nil {
		return own, nil
	}
	o := registry.ClientOptions{Token: r.Token.Reveal(), Timeout: r.Timeout.D()}
	var err error
	if o.TLS, err = clientTLS(r.TLS); err != nil {
		return nil, cfg.Errorf("registry.tls", "%v", err)
	}
	if u.User != nil {
		o.User = u.User.Username()
		o.Password, _ = u.User.Password()
		u.User = nil
	}
	o.URL = u.String()
	c, err := registry.NewClient(o)
	if err != nil {
		return nil, cfg.Errorf("registry.url", "%v", err)
	}
	return c, nil
}

// CloseRegistry ends the connections to a registry elsewhere.
func CloseRegistry(r records.Schemas) {
	if c, ok := r.(*registry.Client); ok {
		c.Close()
	}
}

// schemaStore keeps the registry's versions in the state.
type schemaStore struct{ s *state.Store }

// Schemas implements registry.Store.
func (s schemaStore) Schemas(ctx context.Context) ([]registry.Version, error) {
	all, err := s.s.SchemaVersions(ctx)
	var out []registry.Version
	for _, v := range all {
		out = append(out, registry.Version{Subject: v.Subject, Version: v.Version, ID: v.ID, Format: shape.Format(v.Format), Text: v.Text})
	}
	return out, err
}

// PutSchema implements registry.Store.
func (s schemaStore) PutSchema(ctx context.Context, v registry.Version) error {
	return s.s.PutSchemaVersion(ctx, state.SchemaVersion{Subject: v.Subject, Version: v.Version, ID: v.ID, Format: string(v.Format), Text: v.Text})
}
