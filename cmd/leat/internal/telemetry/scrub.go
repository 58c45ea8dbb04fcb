package telemetry

import (
	"io"
	"regexp"
)

// scrubber is the last door before the log's writer: whatever a library or a server put into a message,
// passwords in URLs and connection strings, webhook secrets and tokens do not get out. It is written JSON
// lines and looks at each string by itself, so that what was JSON stays JSON.
type scrubber struct{ w io.Writer }

var secretKey = regexp.MustCompile(`(?i)^(password|passwd|pwd|secret|authorization)$`)

const named = `(?i)\b((?:password|passwd|pwd|secret)(?:\\"|')?\s*[=:]\s*)`

// What a string may hold, as it stands between the quotes in JSON: its own quotes are \".
var secrets = []struct {
	shape *regexp.Regexp
	by    []byte
}{
	{regexp.MustCompile(`(://[^\s/:@"\\]*):[^\s/"\\]*@`), []byte(`$1:***@`)},
	{regexp.MustCompile(named + `\\"[^"\\]*\\"`), []byte(`$1\"***\"`)},
	{regexp.MustCompile(named + `'[^'\\]*'`), []byte(`$1'***'`)},
	{regexp.MustCompile(named + `[^\s,;'&\\{}\[\]]+`), []byte(`$1***`)},
	{regexp.MustCompile(`\bwh(sec|sk)_[A-Za-z0-9+/=_-]+`), []byte(`wh${1}_***`)},
	{regexp.MustCompile(`(?i)\b(bearer)\s+[A-Za-z0-9._~+/=-]+`), []byte(`$1 ***`)},
}

// Write scrubs and writes one line.
func (s scrubber) Write(p []byte) (int, error) {
	if _, err := s.w.Write(scrub(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func scrub(p []byte) []byte {
	out := make([]byte, 0, len(p))
	secret := false // the value to come belongs to a key of a secret
	for i := 0; i < len(p); i++ {
		out = append(out, p[i])
		if p[i] != '"' {
			continue
		}
		end := i + 1
		for end < len(p) && p[end] != '"' {
			if p[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end, len(p))
		text := p[i+1 : end]
		switch key := end+1 < len(p) && p[end+1] == ':'; {
		case key:
			secret = secretKey.Match(text)
		case secret:
			text, secret = []byte("***"), false
		default:
			for _, x := range secrets {
				text = x.shape.ReplaceAll(text, x.by)
			}
		}
		out = append(out, text...)
		if end < len(p) {
			out = append(out, '"')
		}
		i = end
	}
	return out
}
