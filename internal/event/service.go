package event

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/task"
)

// Service delivers events, and keeps the webhooks.
type Service struct {
	DB    *control.DB
	Audit *audit.Log
	Log   *slog.Logger
	// Version is that of the program, which receivers are told.
	Version string
	// AllowPrivate allows webhooks at private addresses, and without TLS.
	AllowPrivate bool
	// Export is what the operator has the log exported to.
	Export Export

	// The times of deliveries, which tests shorten. 0: that of the constant.
	Timeout    time.Duration // requestTimeout
	RetryFor   time.Duration // retryFor
	FirstRetry time.Duration // firstRetry
	Overlap    time.Duration // overlap
	Poll       time.Duration // pollEvery

	once    sync.Once
	client  *http.Client
	fileSeq atomic.Int64 // the last row that is in the file of the export
}

// The times of deliveries.
const (
	// requestTimeout ends a request to a receiver.
	requestTimeout = 10 * time.Second
	// retryFor is for how long deliveries to a webhook are tried again before it fails.
	retryFor = 24 * time.Hour
	// firstRetry is the pause after the first failure. Each further one doubles it, up to lastRetry.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	// overlap is for how long the previous secret of a webhook signs as well.
	overlap = 24 * time.Hour
	// pollEvery is the longest pause until the next look at the log and at the webhook.
	pollEvery = time.Second
)

// A replica that takes a receiver has it for claim, and stops before that. So of two replicas never both deliver to it.
const (
	claim = 15 * time.Second // its handler ends after 12.5 s
	// startFor is for how long it begins requests, the last of which may take requestTimeout.
	startFor = 2 * time.Second
	// waitFor is for how long it waits for new rows.
	waitFor = 8 * time.Second
	// storeTimeout ends the statement that stores what a receiver has accepted.
	storeTimeout = 2 * time.Second
)

// maxReceivers is how many receivers a replica can serve at a time: all there may be.
const maxReceivers = maxWebhooks + 2

// The kinds of tasks.
const (
	webhookTask = "event.webhook"
	syslogTask  = "event.syslog"
	httpsTask   = "event.https"
)

// webhookClient is the client for all webhooks.
func (s *Service) webhookClient() *http.Client {
	s.once.Do(func() { s.client = newClient(cmp.Or(s.Timeout, requestTimeout), s.AllowPrivate) })
	return s.client
}

func (s *Service) agent() string { return "Rolecall/" + cmp.Or(s.Version, "dev") }

// Run delivers events until ctx ends.
func (s *Service) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	d := &deliverer{Service: s, ending: ctx}
	kinds := []task.Kind{{Name: webhookTask, Do: d.deliverWebhook}}
	for _, c := range s.Export.collectors() {
		kinds = append(kinds, task.Kind{Name: c.task, Do: d.deliverCollector})
		s.ensure(ctx, c)
	}
	if s.Export.File != "" {
		group.Go(func() { s.writeFile(ctx) })
	}
	w := &task.Worker{DB: s.DB, Log: s.Log, Kinds: kinds, Claim: claim, PerCluster: maxReceivers}
	w.Run(ctx)
}
