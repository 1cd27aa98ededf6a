package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v3"

	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/ops"
)

// WriteReserve says how many bytes a store is to leave free of its disk, for others who need it; a running store heeds it within a tenth
// of a second. With less free users can upload nothing, with half as much nobody can.
func WriteReserve(path string, bytes int64) error {
	return atomicfile.Write(path, []byte(strconv.FormatInt(bytes, 10)+"\n"), 0o600)
}

// lookEvery is how often a store looks how full its disk is. What an upload writes meanwhile is beyond the reserve.
const lookEvery = 100 * time.Millisecond

var errNoRoom = errors.New("the disk is low: the upload is stopped")

// level is how much room there is for uploads.
type level int32

const (
	ample level = iota
	low         // for those of members only, by which ends what runs
	out         // for nobody's
)

// reserve watches a disk of which the store may not take all.
type reserve struct {
	path string // of the file that says how much is to be left; "" is nothing
	dir  string
	look func(dir string) (free, total int64, err error)

	level atomic.Int32
	said  atomic.Pointer[string] // how it is, in words
	as    os.FileInfo
	least int64
}

func newReserve(path, dir string) *reserve {
	return &reserve{path: path, dir: dir, look: ops.Room}
}

// Run watches until ctx ends.
func (r *reserve) Run(ctx context.Context) {
	if r.path == "" {
		return
	}
	clock := time.NewTicker(lookEvery)
	defer clock.Stop()
	for {
		r.once()
		select {
		case <-ctx.Done():
			return
		case <-clock.C:
		}
	}
}

// once looks how it is now. What cannot be told leaves all as it is.
func (r *reserve) once() {
	if info, err := os.Stat(r.path); err == nil && (r.as == nil || !os.SameFile(r.as, info) || r.as.ModTime() != info.ModTime()) {
		text, err := os.ReadFile(r.path)
		least, wrong := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
		if err == nil && wrong == nil {
			r.as, r.least = info, least
		}
	}
	free, total, err := r.look(r.dir)
	if err != nil {
		return
	}
	was := level(r.level.Load())
	now := turn(was, free, r.least)
	text := fmt.Sprintf("the disk of the object store has %d MiB free of %d MiB, and %d MiB of it are the coordinator's: delete objects or jobs, or give it more",
		free>>20, total>>20, r.least>>20)
	r.said.Store(&text)
	r.level.Store(int32(now))
	if now != was {
		fmt.Fprintln(os.Stderr, map[level]string{ample: "uploads are taken again: ", low: "uploads of users are refused: ", out: "all uploads are refused: "}[now]+text)
	}
}

// turn decides how much room there is, after it was as it was: what was refused is taken again with a quarter more.
func turn(was level, free, least int64) level {
	users, members := least, least/2
	if was >= low {
		users += users / 4
	}
	if was == out {
		members += members / 4
	}
	switch {
	case free < members:
		return out
	case free < users:
		return low
	}
	return ample
}

// bound is whether somebody's uploads have to stop.
type bound struct {
	reserve *reserve
	least   level // from when on
}

func (b *bound) now() bool { return level(b.reserve.level.Load()) >= b.least }

// hold refuses an upload for which there is no room, and stops one for which there is none any more. Members are told to try again,
// which they do; a user is told why.
func (r *reserve) hold(ctx fiber.Ctx) error {
	if !uploads(ctx.Method(), func(name string) bool { return ctx.Request().URI().QueryArgs().Has(name) }) {
		return ctx.Next()
	}
	claims := request{authorization: ctx.Get("Authorization"), credential: ctx.Query("X-Amz-Credential")}
	ends := &bound{r, low}
	if claims.claimed() == RootAccess {
		ends.least = out
	}
	if ends.now() {
		return r.refuse(ctx, ends.least)
	}
	if conn, ok := ctx.RequestCtx().Conn().(*patientConn); ok {
		conn.held.Store(ends)
	}
	err := ctx.Next()
	if ends.now() && (err != nil || ctx.Response().StatusCode() >= http.StatusBadRequest) {
		return r.refuse(ctx, ends.least)
	}
	return err
}

// uploads says whether a request puts something onto the disk.
func uploads(method string, query func(name string) bool) bool {
	switch method {
	case http.MethodPut:
		return true
	case http.MethodPost:
		return !query("delete") && !query("uploadId") && !query("select")
	}
	return false
}

func (r *reserve) refuse(ctx fiber.Ctx, least level) error {
	status, code := http.StatusInsufficientStorage, "InsufficientStorage"
	if least == out {
		status, code = http.StatusServiceUnavailable, "ServiceUnavailable"
	}
	ctx.Response().Header.SetConnectionClose()
	return answer(ctx, status, code, *r.said.Load())
}
