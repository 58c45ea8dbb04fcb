package events

import (
	"context"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
)

// Schemas is leat schemas.
func Schemas(app *shell.App) *cobra.Command {
	a := &commands{app}
	cmd := fault.Group(&cobra.Command{Use: "schemas", Short: "The shapes of tables, for programs: types of TypeScript"})
	cmd.AddCommand(&cobra.Command{
		Use:   "typescript SUBSCRIPTION",
		Short: "The types of a subscription's events for TypeScript",
		Long: "Prints a module with a type for the rows and keys of each table that the log of its source knows, as the\n" +
			"subscription sees it (tables, columns, mapping, json), and with the event of them all (AnyEvent; AnyRecord\n" +
			"for Kafka with Debezium's encoding). Shapes are those of now: print it again when a table or the subscription has\n" +
			"changed. Events of an older shape may lack columns.",
		Example:           "  leat schemas typescript search > src/leat.ts",
		Args:              fault.Wants("SUBSCRIPTION"),
		ValidArgsFunction: a.Names(false, true),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.typescript(cmd.Context(), args[0]) },
	})
	return cmd
}

func (a *commands) typescript(ctx context.Context, subscription string) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	text, err := s.Get(ctx, "schemas typescript "+subscription, "/v1/subscriptions/"+url.PathEscape(subscription)+"/types.ts")
	if err != nil {
		return err
	}
	a.Out.Printf("%s", text)
	return nil
}
