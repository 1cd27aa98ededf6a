package embedded

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/gofiber/fiber/v3"
)

// envCounts names the descriptor on which the child tells what it has counted, if its parent listens.
const envCounts = "CLARY_OBJECT_COUNTS_FD"

// countsEvery is how often it tells, if there is news.
const countsEvery = time.Second

// How requests end, as Counts has it.
const (
	EndedOK      = "ok"
	EndedRefused = "refused" // 4xx: what was asked for is not there, or is not allowed
	EndedFailed  = "failed"  // 5xx
)

// Counts are what a store has done since it was made, over all starts of its process.
type Counts struct {
	Requests map[string]map[string]int64 `json:"requests"` // by HTTP method and how they ended
	Read     int64                       `json:"read"`     // bytes of objects, as they were announced
	Written  int64                       `json:"written"`
}

// plus is a sum.
func (c Counts) plus(d Counts) Counts {
	sum := Counts{Requests: map[string]map[string]int64{}, Read: c.Read + d.Read, Written: c.Written + d.Written}
	for _, counts := range []Counts{c, d} {
		for method, ends := range counts.Requests {
			if sum.Requests[method] == nil {
				sum.Requests[method] = map[string]int64{}
			}
			for end, n := range ends {
				sum.Requests[method][end] += n
			}
		}
	}
	return sum
}

// Tally is a parent's copy of what its store's process has counted.
type Tally struct {
	mu       sync.Mutex
	ended    Counts // by processes that have ended
	now      Counts
	counting bool
}

// Get returns the counts, and whether there is such a store.
func (t *Tally) Get() (Counts, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended.plus(t.now), t.counting
}

// follow reads what one process tells, until that has ended.
func (t *Tally) follow(from io.Reader) {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		var told Counts
		if json.Unmarshal(lines.Bytes(), &told) != nil {
			continue // the last line of a process that was killed
		}
		t.mu.Lock()
		t.now, t.counting = told, true
		t.mu.Unlock()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended, t.now = t.ended.plus(t.now), Counts{}
}

// counter counts in the store's own process.
type counter struct {
	mu     sync.Mutex
	counts Counts
	news   bool
}

// methods are those that have counts of their own: a client can name any.
var methods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPut: true, http.MethodPost: true, http.MethodDelete: true,
}

// count passes a request on and counts how it ended.
func (c *counter) count(ctx fiber.Ctx) error {
	err := ctx.Next()
	method, status := ctx.Method(), ctx.Response().StatusCode()
	var said *fiber.Error
	switch {
	case errors.As(err, &said):
		status = said.Code
	case err != nil:
		status = http.StatusInternalServerError
	}
	if ctx.Path() == healthPath {
		return err
	}
	if !methods[method] {
		method = "other"
	}
	end := EndedOK
	switch {
	case status >= 500:
		end = EndedFailed
	case status >= 400:
		end = EndedRefused
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.news = true
	if c.counts.Requests[method] == nil {
		c.counts.Requests[method] = map[string]int64{}
	}
	c.counts.Requests[method][end]++
	if end != EndedOK {
		return err
	}
	switch method {
	case http.MethodGet:
		c.counts.Read += max(int64(ctx.Response().Header.ContentLength()), 0)
	case http.MethodPut, http.MethodPost:
		c.counts.Written += max(int64(ctx.Request().Header.ContentLength()), 0)
	}
	return err
}

// tell writes what was counted, a line each second in which there was something.
func (c *counter) tell(to io.Writer, ended <-chan struct{}) {
	clock := time.NewTicker(countsEvery)
	defer clock.Stop()
	for {
		select {
		case <-ended:
			return
		case <-clock.C:
		}
		c.mu.Lock()
		copied, news := Counts{}.plus(c.counts), c.news
		c.news = false
		c.mu.Unlock()
		if !news {
			continue
		}
		line, err := json.Marshal(copied)
		if err == nil {
			_, err = to.Write(append(line, '\n'))
		}
		if err != nil {
			return // nobody listens any more
		}
	}
}
