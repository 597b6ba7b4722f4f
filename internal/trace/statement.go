package trace

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// operations are the words that statements begin with. A statement with another one is called "statement".
var operations = map[string]bool{
	"ALTER": true, "ANALYZE": true, "BEGIN": true, "COMMENT": true, "COMMIT": true, "CREATE": true, "DELETE": true, "DO": true,
	"DROP": true, "GRANT": true, "INSERT": true, "LISTEN": true, "LOCK": true, "REASSIGN": true, "RELEASE": true,
	"RESET": true, "REVOKE": true, "ROLLBACK": true, "SAVEPOINT": true, "SELECT": true, "SET": true, "SHOW": true,
	"UPDATE": true, "VALUES": true, "WITH": true,
}

// operation is the first word of a statement, if it is one of SQL.
func operation(sql string) string {
	word, _, _ := strings.Cut(strings.TrimLeft(sql, " \t\r\n"), " ")
	word = strings.ToUpper(strings.TrimRight(word, ";\r\n"))
	if operations[word] {
		return word
	}
	return "statement"
}

type statementKey struct{}

// Statement begins the span of a statement within a request that has one. peer is the kind of the database, and id that of
// the cluster, if it is one.
func Statement(ctx context.Context, peer, id, sql string) context.Context {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx // without reading the statement: each one comes here
	}
	return begin(ctx, peer, id, operation(sql))
}

// Batch is Statement for several statements that are sent together.
func Batch(ctx context.Context, peer, id string) context.Context {
	return begin(ctx, peer, id, "batch")
}

// Connect is Statement for the opening of a connection.
func Connect(ctx context.Context, peer, id string) context.Context {
	return begin(ctx, peer, id, "connect")
}

func begin(ctx context.Context, peer, id, name string) context.Context {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx
	}
	attributes := []attribute.KeyValue{attribute.String("db.system.name", "postgresql"),
		attribute.String("db.operation.name", name)}
	if id != "" {
		attributes = append(attributes, attribute.String("rolecall.cluster.id", id))
	}
	ctx, span := parent.TracerProvider().Tracer("rolecall").Start(ctx, peer+" "+name,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return context.WithValue(ctx, statementKey{}, span)
}

// EndStatement ends the span that Statement, Batch or Connect has begun. Of an error it keeps the SQLSTATE only.
func EndStatement(ctx context.Context, err error) {
	span, ok := ctx.Value(statementKey{}).(trace.Span)
	if !ok {
		return
	}
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		span.SetAttributes(attribute.String("db.response.status_code", refused.Code))
	}
	span.End()
}
