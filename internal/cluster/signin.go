package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/trace"
)

const (
	signInPause = 100 * time.Millisecond // between two sign-ins over the pool of a cluster
	signInBurst = 2 * maxConns           // sign-ins that begin at once: a failover replaces all connections
)

// pace spaces the sign-ins over the pool of a cluster. A server that refuses each one, or ends each session, would otherwise
// keep the processors from other clusters.
type pace struct {
	due     time.Time // when the next sign-in begins once the burst is used up
	failure error     // of the last sign-in; nil if it succeeded
}

// begin returns how long the next sign-in waits. If the last one failed, it waits for one pause at most, so that a cluster
// that is back is found at once; those that would wait longer fail for the same reason as the last one.
func (p *pace) begin(now time.Time) (time.Duration, error) {
	if full := now.Add(-(signInBurst - 1) * signInPause); p.due.Before(full) {
		p.due = full
	}
	wait := max(p.due.Sub(now), 0)
	if wait > signInPause && p.failure != nil {
		return 0, p.failure
	}
	p.due = p.due.Add(signInPause)
	return wait, nil
}

// signIns is the pace of a cluster's sign-ins. It learns how they end, as the tracer of the cluster's connections. Sign-ins
// to other databases are not counted, because the owner of a database can make them fail.
type signIns struct {
	database string
	cluster  string // id of the cluster, for traces

	mu   sync.Mutex
	pace pace
}

// await waits until a sign-in may begin.
func (s *signIns) await(ctx context.Context) error {
	s.mu.Lock()
	wait, err := s.pace.begin(time.Now())
	s.mu.Unlock()
	if err != nil || wait == 0 {
		return err
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end notes how a sign-in ended.
func (s *signIns) end(err error) {
	if errors.Is(err, context.Canceled) {
		return // this says nothing about the cluster
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pace.failure = err
}

// counted is the key of a context under which it says whether the sign-in is to the registered database.
type counted struct{}

// peer is the name of clusters in traces.
const peer = "cluster"

// TraceConnectStart is that of a pgx.ConnectTracer.
func (s *signIns) TraceConnectStart(ctx context.Context, data pgx.TraceConnectStartData) context.Context {
	ctx = trace.Connect(ctx, peer, s.cluster)
	return context.WithValue(ctx, counted{}, data.ConnConfig.Database == s.database)
}

// TraceConnectEnd is that of a pgx.ConnectTracer.
func (s *signIns) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) {
	trace.EndStatement(ctx, data.Err)
	if is, _ := ctx.Value(counted{}).(bool); is {
		s.end(data.Err)
	}
}

// TraceQueryStart is that of a pgx.QueryTracer.
func (s *signIns) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return trace.Statement(ctx, peer, s.cluster, data.SQL)
}

// TraceQueryEnd is that of a pgx.QueryTracer.
func (*signIns) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	trace.EndStatement(ctx, data.Err)
}

// TraceBatchStart is that of a pgx.BatchTracer.
func (s *signIns) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return trace.Batch(ctx, peer, s.cluster)
}

// TraceBatchQuery does nothing; pgx requires it of a BatchTracer.
func (*signIns) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd is that of a pgx.BatchTracer.
func (*signIns) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	trace.EndStatement(ctx, data.Err)
}
