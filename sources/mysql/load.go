package mysql

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// progress is how far a stream has read, for Load; kept while no stream is open.
type progress struct {
	mu   sync.Mutex
	open int
	file string
	pos  uint64
	time uint32 // of the last event read: the server's clock, seconds since 1970; 0 = not known
}

// note is called when all up to a place was handed over.
func (g *progress) note(file string, pos uint64, time uint32) {
	g.mu.Lock()
	g.file, g.pos, g.time = file, pos, time
	g.mu.Unlock()
}

// opened counts streams: n is 1 or -1.
func (g *progress) opened(n int) {
	g.mu.Lock()
	g.open += n
	g.mu.Unlock()
}

// prober is the state of Load: its connection and what it measured before.
type prober struct {
	mu     sync.Mutex
	c      *conn
	v      *server
	expiry time.Duration // a binlog file may go when its last event is so old; 0 = never by age
	most   uint64        // all binlogs may be as large as that; 0 = no limit
	user   string
	events bool // MySQL counts its event scheduler as running
	wrote  pipeline.Meter
	end    binlogFile
	total  uint64 // bytes written since the first Load
}

// binlogFile is a line of SHOW BINARY LOGS.
type binlogFile struct {
	name string
	size uint64
}

// Load implements [pipeline.Prober]. Threads_running needs no right, the binlog's state REPLICATION
// CLIENT (MariaDB: BINLOG MONITOR), which the stream needs too; the lag of a server that is itself a
// replica is read with that right, or MariaDB's SLAVE MONITOR.
func (s *Source) Load(ctx context.Context) (pipeline.SourceLoad, error) {
	p := &s.probe
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c == nil {
		if err := p.connect(ctx, s); err != nil {
			return pipeline.SourceLoad{}, err
		}
	}
	l := pipeline.NewSourceLoad(time.Now())
	err := p.running(ctx, s, &l)
	if err == nil {
		err = p.binlogs(ctx, s, &l)
	}
	if err == nil {
		err = p.replica(ctx, &l)
	}
	if err == nil {
		err = p.signals(ctx, s, &l)
	}
	if err != nil {
		p.drop()
		return pipeline.SourceLoad{}, fmt.Errorf("source %s: ask for the load: %w", s.cfg.Name, err)
	}
	return l, nil
}

func (p *prober) connect(ctx context.Context, s *Source) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	v, vars, err := c.inspect(ctx)
	if err == nil {
		p.user = "the user of the url"
		if u, uerr := c.value(ctx, "SELECT CURRENT_USER()"); uerr == nil {
			p.user = account(u)
		}
	}
	if err != nil {
		_ = c.Close()
		return err
	}
	p.c, p.v, p.expiry = c, v, expiry(vars)
	p.events = !v.mariadb && on(vars["event_scheduler"])
	p.most, _ = strconv.ParseUint(vars["max_binlog_total_size"], 10, 64) // missing or 0: no limit
	return nil
}

// expiry is the age at which the server removes a binlog file, 0 = never.
func expiry(vars map[string]string) time.Duration {
	seconds, err := strconv.ParseFloat(vars["binlog_expire_logs_seconds"], 64)
	if err != nil || seconds <= 0 {
		days, err := strconv.ParseFloat(vars["expire_logs_days"], 64)
		if err != nil {
			return 0
		}
		seconds = days * 86400
	}
	if on(vars["binlog_expire_logs_auto_purge"]) || vars["binlog_expire_logs_auto_purge"] == "" {
		return time.Duration(seconds * float64(time.Second))
	}
	return 0
}

// running counts the sessions at work: without this one, and without the stream, whose dump counts.
func (p *prober) running(ctx context.Context, s *Source, l *pipeline.SourceLoad) error {
	rows, err := p.c.rows(ctx, "SHOW GLOBAL STATUS WHERE Variable_name IN ('Threads_running', 'Innodb_row_lock_current_waits')")
	if err != nil {
		return err
	}
	s.at.mu.Lock()
	ours := 1 + s.at.open
	s.at.mu.Unlock()
	if p.events {
		ours++
	}
	for _, r := range rows {
		n, err := strconv.Atoi(r[1])
		switch {
		case err != nil:
		case strings.EqualFold(r[0], "Threads_running"):
			l.Active = max(n-ours, 0)
		default:
			l.Waiting = n
		}
	}
	return nil
}

// binlogs compares what is written with what was read.
func (p *prober) binlogs(ctx context.Context, s *Source, l *pipeline.SourceLoad) error {
	rows, err := p.c.rows(ctx, "SHOW BINARY LOGS")
	if code(err) == "right_missing" {
		right := "REPLICATION CLIENT"
		if p.v.mariadb && p.v.number >= 100502 {
			right = "BINLOG MONITOR"
		}
		p.missing(l, right, "how much binlog is left to be read, and for how long, cannot be seen")
		return nil
	}
	if err != nil {
		return err
	}
	files := make([]binlogFile, 0, len(rows))
	for _, r := range rows {
		if len(r) < 2 {
			continue
		}
		size, err := strconv.ParseUint(r[1], 10, 64)
		if err != nil {
			return transient("protocol", "read SHOW BINARY LOGS", err)
		}
		files = append(files, binlogFile{r[0], size})
	}
	if len(files) == 0 {
		return nil
	}
	p.rate(l, files)
	if p.expiry > 0 {
		l.Expiry, l.Age = p.expiry, 0
	}
	if i := p.place(s, l, files); i >= 0 && i < len(files)-1 { // the file that is written no server removes
		return p.age(ctx, s, l)
	}
	return nil
}

// place compares where the stream stands with the files there are, and returns the index of its file, -1 when
// there is none.
func (p *prober) place(s *Source, l *pipeline.SourceLoad, files []binlogFile) int {
	s.at.mu.Lock()
	file, pos, open := s.at.file, s.at.pos, s.at.open > 0
	s.at.mu.Unlock()
	if file == "" {
		return -1 // nothing was read yet
	}
	i := slices.IndexFunc(files, func(f binlogFile) bool { return f.name == file })
	if i < 0 {
		l.ToLoss, l.Lost = 0, !open // a stream that reads a removed file still has it
		return -1
	}
	kept := uint64(0)
	for _, f := range files[i:] {
		kept += f.size
	}
	l.Behind = int64(kept - min(pos, kept))
	if p.most > 0 && i < len(files)-1 {
		l.Headroom = int64(p.most - min(kept, p.most))
		l.ToLoss = pipeline.ToLoss(l.Headroom, l.Rate)
	}
	return i
}

// age tells by the time of the last event read how long its file is kept, at least.
func (p *prober) age(ctx context.Context, s *Source, l *pipeline.SourceLoad) error {
	s.at.mu.Lock()
	at := s.at.time
	s.at.mu.Unlock()
	if p.expiry == 0 || at == 0 {
		return nil
	}
	text, err := p.c.value(ctx, "SELECT UNIX_TIMESTAMP()")
	if err != nil {
		return err
	}
	now, perr := strconv.ParseInt(text, 10, 64)
	if perr != nil {
		return transient("protocol", "read the server's clock", perr)
	}
	l.Age = max(time.Duration(now-int64(at))*time.Second, 0)
	left := max(p.expiry-l.Age, 0)
	if l.ToLoss < 0 || left < l.ToLoss {
		l.ToLoss = left
	}
	return nil
}

// rate measures how fast the binlog grows, over its files.
func (p *prober) rate(l *pipeline.SourceLoad, files []binlogFile) {
	newest := files[len(files)-1]
	if i := slices.IndexFunc(files, func(f binlogFile) bool { return f.name == p.end.name }); i >= 0 {
		for _, f := range files[i:] {
			p.total += f.size
		}
		p.total -= min(p.end.size, p.total)
	}
	p.end = newest
	l.Rate = p.wrote.Add(l.At, p.total)
}

// replica asks for the lag of a server that is a replica. Its own replicas' lag a primary does not know.
func (p *prober) replica(ctx context.Context, l *pipeline.SourceLoad) error {
	sql := "SHOW REPLICA STATUS"
	switch {
	case p.v.mariadb:
		sql = "SHOW ALL SLAVES STATUS"
	case p.v.number < 80022:
		sql = "SHOW SLAVE STATUS"
	}
	r, err := p.c.exec(ctx, sql)
	if code(err) == "right_missing" {
		right := "REPLICATION CLIENT"
		if p.v.mariadb && p.v.number >= 100509 {
			right = "SLAVE MONITOR"
		}
		p.missing(l, right, "whether the server is a replica that lags cannot be seen")
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if r.Resultset == nil {
		return nil
	}
	for i := range r.RowNumber() {
		for _, name := range []string{"Seconds_Behind_Source", "Seconds_Behind_Master"} {
			if text, err := r.GetStringByName(i, name); err == nil {
				if n, err := strconv.ParseInt(text, 10, 32); err == nil { // NULL: it does not run
					l.ReplicaLag = max(l.ReplicaLag, time.Duration(n)*time.Second)
				}
			}
		}
	}
	return nil
}

// signals reads the signal table, where there is one. That it cannot be read is a finding: a throttle that is
// not seen must not stop the rest.
func (p *prober) signals(ctx context.Context, s *Source, l *pipeline.SourceLoad) error {
	schema, name, _ := strings.Cut(s.cfg.SignalTable, ".")
	if name == "" {
		return nil
	}
	table := ident(schema, name)
	rows, err := p.c.rows(ctx, "SELECT COALESCE(`owner`, ''), COALESCE(`reason`, ''), COALESCE(`ratio`, 0) + 0.0, COALESCE(UNIX_TIMESTAMP(`until`), 0) FROM "+
		table+" WHERE `until` IS NULL OR `until` > UTC_TIMESTAMP() LIMIT 100")
	if err != nil && (ctx.Err() != nil || code(err) == "unreachable") {
		return err
	}
	if err != nil {
		cure := "CREATE TABLE " + table + " (`owner` TEXT, `reason` TEXT, `ratio` REAL, `until` DATETIME NULL)"
		if code(err) == "access_denied" || strings.Contains(err.Error(), "denied") {
			cure = "GRANT SELECT ON " + table + " TO " + p.user
		}
		l.Findings = append(l.Findings, pipeline.Finding{Level: "warning", Code: "signal_table", Place: s.cfg.SignalTable, What: "the signal table cannot be read: " + err.Error(), Cure: cure})
		return nil
	}
	for _, r := range rows {
		ratio, err := strconv.ParseFloat(r[2], 64)
		if err != nil {
			ratio = 0
		}
		g := pipeline.Signal{Owner: r[0], Reason: r[1], Ratio: min(max(ratio, 0), 1)}
		if n, err := strconv.ParseFloat(r[3], 64); err == nil && n > 0 {
			g.Until = time.Unix(int64(n), 0)
		}
		l.Signals = append(l.Signals, g)
	}
	return nil
}

func (p *prober) missing(l *pipeline.SourceLoad, right, what string) {
	l.Findings = append(l.Findings, pipeline.Finding{Level: "warning", Code: "load_right_missing", Place: right, What: what, Cure: "GRANT " + right + " ON *.* TO " + p.user})
}

// account quotes what CURRENT_USER() returns.
func account(u string) string {
	name, host, _ := strings.Cut(u, "@")
	return "`" + name + "`@`" + host + "`"
}

func (p *prober) drop() {
	if p.c != nil {
		_ = p.c.Close() // of no more use, whatever it says
		p.c = nil
	}
}

// Rest implements [pipeline.Prober].
func (s *Source) Rest() {
	s.probe.mu.Lock()
	defer s.probe.mu.Unlock()
	s.probe.drop()
}

var _ pipeline.Prober = (*Source)(nil)
