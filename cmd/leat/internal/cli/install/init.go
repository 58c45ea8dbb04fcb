package install

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
)

// secretFile holds the webhook secret that init makes, beside the config.
const secretFile = "webhook.secret"

// Init is leat init.
func Init(app *shell.App) *cobra.Command {
	a := &commands{app}
	var from string
	cmd := &cobra.Command{
		Use:   "init [--from URL]",
		Short: "Write a commented leat.yaml; from a database: its tables, keys, what to change there",
		Long: "Writes a commented leat.yaml and, into webhook.secret beside it, a secret that signs webhooks\n" +
			"(readable by you alone; keep it out of version control). Nothing is overwritten.",
		Example: "  leat init\n" +
			"  leat init --from 'postgres://leat:${PGPASSWORD}@db:5432/app'\n" +
			"  leat init --from 'mysql://leat:${MYPASSWORD}@db:3306/' -c orders.yaml",
		Args: fault.Wants(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.init(cmd.Context(), cmd, from)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "`URL` of a database to look into; ${NAME} in it stays a name in the file")
	a.JSONFlag(cmd)
	return cmd
}

// made is what init tells.
type made struct {
	Config   string             `json:"config"`
	Secret   string             `json:"secret_file,omitempty"`
	Server   string             `json:"server,omitempty"`
	Tables   []shell.FoundTable `json:"tables,omitempty"`
	Findings []pipeline.Finding `json:"findings,omitempty"`
	Set      string             `json:"set,omitempty"` // variable that has to hold the password
}

func (a *commands) init(ctx context.Context, cmd *cobra.Command, from string) error {
	file := a.File()
	if _, err := os.Lstat(file); err == nil {
		return fault.New(fault.WrongUsage, fmt.Errorf("%s is already there: nothing was written", file), "Give another name with -c FILE.")
	}
	m := made{Config: file}
	var o config.InitOptions
	if from != "" {
		if a.InitFrom == nil {
			return fault.Unsupported("leat init --from")
		}
		shown, real, variable, err := a.initURL(cmd, from)
		if err != nil {
			return err
		}
		found, err := a.InitFrom(ctx, real)
		if err != nil {
			return fmt.Errorf("look into the database: %w", err)
		}
		slices.SortFunc(found.Tables, func(x, y shell.FoundTable) int { return strings.Compare(x.Name, y.Name) })
		for i := range found.Tables {
			if found.Tables[i].Key == nil {
				found.Tables[i].Key = []string{}
			}
		}
		m.Server, m.Tables, m.Findings, m.Set = found.Server, found.Tables, found.Findings, variable
		o = config.InitOptions{URL: shown, Tables: globs(found.Tables)}
	}
	text, err := config.Init(o)
	if err != nil {
		return err
	}
	secret := filepath.Join(filepath.Dir(file), secretFile)
	switch err := writeSecret(secret); {
	case err == nil:
		m.Secret = secret
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("write the webhook secret: %w", err)
	}
	text = bytes.ReplaceAll(text, []byte(`"${WEBHOOK_SECRET}"`), []byte(`"file:./`+secretFile+`"`))
	text = append(text, comments(m)...)
	if err := writeNew(file, text, 0o644); err != nil {
		if m.Secret != "" {
			err = errors.Join(err, os.Remove(secret))
		}
		return fmt.Errorf("write config: %w", err)
	}
	if a.JSON {
		return a.Document(m)
	}
	a.tellMade(m)
	return nil
}

func (a *commands) tellMade(m made) {
	if m.Server != "" {
		a.Out.Printf("%s\n\n", screen.Clean(m.Server))
		head := []string{"TABLE", "KEY", ">ROWS"}
		if !slices.ContainsFunc(m.Tables, func(f shell.FoundTable) bool { return f.Rows >= 0 }) {
			head = head[:2] // nobody counted
		}
		t := screen.NewTable(head...)
		for _, f := range m.Tables {
			rows := ""
			if f.Rows >= 0 {
				rows = "~" + screen.Count(f.Rows)
			}
			cells := []screen.Cell{screen.Text(f.Name), screen.Text(keyText(f.Key)), screen.Text(rows)}
			t.Row(cells[:len(head)]...)
		}
		if t.Len() > 0 {
			a.Out.Print(t)
			a.Out.Printf("\n")
		}
		if a.Findings(a.Out, m.Findings) > 0 || len(m.Findings) > 0 {
			a.Out.Printf("\n")
		}
	}
	a.Out.Printf("wrote %s\n", m.Config)
	if m.Secret != "" {
		a.Out.Printf("wrote %s: signs webhooks, for you alone; keep it out of version control\n", m.Secret)
	}
	name := ""
	if m.Config != shell.DefaultFile {
		name = " -c " + m.Config
	}
	set := ""
	if m.Server == "" && m.Set == "" {
		m.Set = "PGPASSWORD" // the example's
	}
	if m.Set != "" {
		set = " put the password into " + m.Set + ", then"
	}
	a.Out.Printf("\nNext:%s\n  leat check%s\n  leat run%s\n", set, name, name)
}

func keyText(key []string) string {
	if len(key) == 0 {
		return "none: the whole table is one key"
	}
	return strings.Join(key, ", ")
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// initURL splits a URL into what stands in the file and what is used to connect, and the variable that
// holds the password. A password that was typed does not get into the file.
func (a *commands) initURL(cmd *cobra.Command, from string) (shown, real, name string, err error) {
	bad := func() error {
		return fault.Usage(cmd, "--from is not a URL: want postgres://USER:${PGPASSWORD}@HOST:PORT/DATABASE or mysql://USER:${MYPASSWORD}@HOST:PORT/")
	}
	missing := ""
	whole := variable.FindString(from) == from // the variable is the URL, not a part of it
	real = variable.ReplaceAllStringFunc(from, func(ref string) string {
		name = variable.FindStringSubmatch(ref)[1]
		v, ok := a.Env(name)
		if !ok {
			missing = name
		}
		if whole {
			return v
		}
		return strings.ReplaceAll(url.QueryEscape(v), "+", "%20")
	})
	if missing != "" {
		return "", "", "", fault.New(fault.WrongUsage, fmt.Errorf("--from: the variable %s is not set", missing), "")
	}
	u, perr := url.Parse(real) // its error would quote the password
	if perr != nil || u.Host == "" {
		return "", "", "", bad()
	}
	std := "PGPASSWORD"
	switch u.Scheme {
	case "postgres", "postgresql":
	case "mysql", "mariadb":
		std = "MYPASSWORD"
	default:
		return "", "", "", bad()
	}
	if name != "" {
		return from, real, name, nil
	}
	_, typed := u.User.Password()
	if !typed { // it connected without: by trust, a socket, a certificate or ~/.pgpass
		return from, real, "", nil
	}
	a.Err.Printf("leat: the password stood on the command line, where others on this machine can see it;\n"+
		"      %s holds ${%s} in its place\n", a.File(), std)
	// The reference must not be percent-encoded, so the parts are put together by hand.
	masked := *u
	masked.User = nil
	rest := strings.TrimPrefix(masked.String(), u.Scheme+"://")
	return u.Scheme + "://" + url.User(u.User.Username()).String() + ":${" + std + "}@" + rest, real, std, nil
}

// globs are the tables of leat.yaml: each schema whole, as tables come and go.
func globs(tables []shell.FoundTable) []string {
	var out []string
	for _, t := range tables {
		schema, _, ok := strings.Cut(t.Name, ".")
		if g := schema + ".*"; ok && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

// comments are what was found in the database, to stand in the file.
func comments(m made) []byte {
	if m.Server == "" {
		return nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "\n# What leat init found: %s\n", screen.Clean(m.Server))
	for _, t := range m.Tables {
		fmt.Fprintf(&b, "#   %s  key: %s\n", screen.Clean(t.Name), screen.Clean(keyText(t.Key)))
	}
	for i, f := range m.Findings {
		if i == 0 {
			fmt.Fprintf(&b, "#\n# To be looked at there (leat check tells what is still open):\n")
		}
		place := ""
		if f.Place != "" {
			place = screen.Clean(f.Place) + ": "
		}
		fmt.Fprintf(&b, "#   %s: %s%s\n", f.Level, place, screen.Clean(f.What))
		if f.Cure != "" {
			fmt.Fprintf(&b, "#     %s\n", screen.Clean(f.Cure))
		}
	}
	return b.Bytes()
}

// writeSecret makes a secret as Standard Webhooks want it: 24 to 64 random bytes.
func writeSecret(file string) error {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	return writeNew(file, []byte("whsec_"+base64.StdEncoding.EncodeToString(key)+"\n"), 0o600)
}

// writeNew never overwrites, also not what appears meanwhile.
func writeNew(file string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}
