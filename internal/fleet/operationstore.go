package fleet

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/pgrole"
	"rolecall/internal/task"
)

// Options are what an action may be given, as it is stored.
type Options struct {
	ValidUntil *time.Time `json:"validUntil,omitempty"` // of Expire
	ReassignTo string     `json:"reassignTo,omitempty"` // of Delete
	OnBlocked  string     `json:"onBlocked,omitempty"`  // of Delete: "disable", or ""
}

func optionsOf(r *Request) (o Options) {
	if r.Action == Expire {
		at := r.ValidUntil.UTC()
		o.ValidUntil = &at
	}
	o.ReassignTo = r.ReassignTo
	if r.Disable {
		o.OnBlocked = "disable"
	}
	return o
}

// querier is the pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// clock is the time of the control database.
func clock(ctx context.Context, q querier) (now time.Time, err error) {
	err = q.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	return now, err
}

// insertOperation stores an operation with its parts, items and tasks.
func insertOperation(ctx context.Context, tx pgx.Tx, id uuid.UUID, p *account.Principal, r *Request, plan []Planned) error {
	scopes := p.Scopes
	if p.Clusters != nil {
		scopes = p.ClusterScopes
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO operations (id, action, options, account_guid, account_name, token, access_token, scopes, clusters,
		  request_id, address)
		VALUES ($1, $2, $3, $4, $5, nullif($6, `+noID+`), nullif($7, `+noID+`), $8, $9, $10, $11)`,
		id, r.Action, optionsOf(r), p.GUID, p.Entry("", "", nil).AccountName, p.Token, p.AccessToken,
		append([]string{}, scopes...), p.Clusters, p.RequestID, p.Address)
	if err != nil {
		return err
	}
	parts, order := partsOf(plan)
	for _, part := range order {
		_, err := tx.Exec(ctx, `
			INSERT INTO operation_parts (id, operation_id, cluster_id, cluster_name, total, skipped)
			VALUES ($1, $2, $3, $4, $5, $6)`, part.id, id, part.cluster, part.name, part.total, part.skipped)
		if err != nil {
			return err
		}
		if part.skipped < part.total {
			if err := scheduleWork(ctx, tx, part.id, part.cluster); err != nil {
				return err
			}
		}
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"operation_items"},
		[]string{"operation_id", "position", "part_id", "name", "role_oid", "state", "detail"},
		pgx.CopyFromSlice(len(plan), func(i int) ([]any, error) {
			u, state := plan[i], "pending"
			if u.Skipped != "" {
				state = "skipped"
			}
			var oid *uint32
			if u.OID != 0 {
				oid = &u.OID
			}
			return []any{id, int32(i), parts[u.Cluster.ID].id, pgrole.Storable(u.Name), oid, state, u.Skipped}, nil
		}))
	if err != nil {
		return err
	}
	// An operation without anything to do ends with its first look.
	return task.Set(ctx, tx, task.Task{Kind: tendTask, Key: id})
}

const noID = `'00000000-0000-0000-0000-000000000000'::uuid`

// newPart is the part of a plan in one cluster.
type newPart struct {
	id, cluster    uuid.UUID
	name           string
	total, skipped int
}

// partsOf are the parts of a plan, by the id of the cluster and in the order of the plan.
func partsOf(plan []Planned) (parts map[uuid.UUID]*newPart, order []*newPart) {
	parts = map[uuid.UUID]*newPart{}
	for _, u := range plan {
		part := parts[u.Cluster.ID]
		if part == nil {
			part = &newPart{id: uuid.New(), cluster: u.Cluster.ID, name: u.Cluster.DisplayName}
			parts[u.Cluster.ID] = part
			order = append(order, part)
		}
		part.total++
		if u.Skipped != "" {
			part.skipped++
		}
	}
	return parts, order
}
