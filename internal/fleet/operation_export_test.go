package fleet

import (
	"context"

	"github.com/google/uuid"
)

// Tend looks at an operation as a whole.
func (s *Service) Tend(ctx context.Context, id uuid.UUID) error {
	_, err := s.tend(ctx, id)
	return err
}
