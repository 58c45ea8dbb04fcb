package api

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Clients of a schema registry send a token as a password, and POST what they ask; nowhere else is that taken.
func TestRegistryClients(t *testing.T) {
	o := peopleOptions()
	o.Registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, " ", r.URL.Path) })
	x := serve(t, o, nil)
	for _, c := range []struct {
		method, path, password string
		status                 int
	}{
		{"GET", "/registry/subjects", secretOf("other"), 200},
		{"POST", "/registry/subjects/a", secretOf("publish"), 200},
		{"GET", "/registry/subjects", "wrong", 401},
		{"GET", "/registry/subjects", "", 401},
		{"GET", "/metrics", secretOf("read"), 401},
	} {
		r, _ := http.NewRequest(c.method, x.url+c.path, strings.NewReader("{}"))
		if c.password != "" {
			r.SetBasicAuth("anyone", c.password)
		}
		resp, err := x.client(false, "").Do(r)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || c.status == 200 && string(p) != c.method+" "+c.path {
			t.Errorf("%+v: %d %s", c, resp.StatusCode, p)
		}
	}
}
