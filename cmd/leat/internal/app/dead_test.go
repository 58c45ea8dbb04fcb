package app

import (
	"net/http"
	"testing"
)

// What was given up on is still there after a restart, so status goes on showing it.
func TestDeadLettersStayInStatus(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	yaml := db.yaml("a: {source: files, exhausted: skip, deliver: {" + toHook(h) + "}}")
	h.answers(answering(http.StatusUnprocessableEntity))
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (1)")
	until(t, "the dead letter", func() bool { return in.subscription(t, "a").Dead == 1 })
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	in = install(t, dir, yaml)
	if n := in.subscription(t, "a").Dead; n != 1 {
		t.Errorf("%d dead letters after a restart, want 1", n)
	}
}
