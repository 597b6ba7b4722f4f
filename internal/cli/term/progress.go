package term

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Progress shows on the standard error how far something is: as a bar on a terminal, else as a line now and then.
type Progress struct {
	cmd   *cobra.Command
	bar   bool
	shown string    // what is there
	last  time.Time // when a line was printed
}

// NewProgress returns a progress of which nothing is shown yet.
func NewProgress(cmd *cobra.Command) *Progress {
	return &Progress{cmd: cmd, bar: isTerminal(cmd.ErrOrStderr())}
}

const (
	barWidth = 30
	// lineEvery is the pause between two lines.
	lineEvery = 5 * time.Second
)

// Show shows how much of all is done, and a remark.
func (p *Progress) Show(done, all int, remark string) {
	text := fmt.Sprintf("%d of %d%s", done, all, printable(remark))
	if isSet(p.cmd, quietFlag) || text == p.shown {
		return
	}
	switch {
	case p.bar:
		full := barWidth
		if all > 0 {
			full = barWidth * done / all
		}
		fmt.Fprintf(p.cmd.ErrOrStderr(), "\r[%s%s] %s\x1b[K", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), text)
	case time.Since(p.last) < lineEvery:
		return
	default:
		fmt.Fprintln(p.cmd.ErrOrStderr(), text)
		p.last = time.Now()
	}
	p.shown = text
}

// End leaves the line of the bar.
func (p *Progress) End() {
	if p.bar && p.shown != "" {
		fmt.Fprintln(p.cmd.ErrOrStderr())
	}
}
