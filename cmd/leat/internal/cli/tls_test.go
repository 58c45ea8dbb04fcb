package cli_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// strangerCmd starts a server that is no Leat of this version: stranger older|html|tls. tls speaks it and
// writes its authority to ca.pem.
func strangerCmd(ts *testscript.TestScript, _ bool, args []string) {
	mux := http.NewServeMux()
	if args[0] == "html" {
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>It works!</html>") })
	} else {
		mux.Handle(leatv1connect.NewAdminServiceHandler(leatv1connect.UnimplementedAdminServiceHandler{}))
	}
	s := httptest.NewUnstartedServer(mux)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if args[0] == "tls" {
		s.StartTLS()
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
		ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), block, 0o600))
	} else {
		s.Start()
	}
	ts.Value("t").(testing.TB).Cleanup(s.Close)
	ts.Setenv("LEAT_ADDR", s.URL)
	ts.Setenv("HOSTPORT", s.URL[strings.Index(s.URL, "//")+2:])
}
