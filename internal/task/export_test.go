package task

import "context"

// Take takes what is due and does nothing, as a replica that is killed then.
func (w *Worker) Take(ctx context.Context) (int, error) {
	tasks, err := w.claim(ctx)
	return len(tasks), err
}
