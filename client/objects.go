package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Object is what is known of the bytes under an s3://bucket/key.
type Object struct {
	URI      string `json:"uri"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // Unix nanoseconds
	ETag     string `json:"etag,omitempty"`
	SHA256   string `json:"sha256,omitempty"` // hex; empty if the writer left none
}

// Page is one page of a listing: objects, and the prefixes that stand for what is
// below them. Next, if it is not empty, is the after of the page that follows.
type Page struct {
	Objects  []Object `json:"objects"`
	Prefixes []string `json:"prefixes,omitempty"`
	Next     string   `json:"next,omitempty"`
}

// Credentials are the caller's own S3 keys, and where to use them.
type Credentials struct {
	Endpoint  string `json:"endpoint"`
	Region    string `json:"region"`
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
	CAPEM     string `json:"ca_pem,omitempty"`
}

const sendChunk = 256 << 10

// PutObject stores what the reader gives under a URI; size is -1 if it is not known. A
// reader that is an io.Seeker is sent again, from where it stood, if a coordinator goes
// away in the middle.
func (c *Client) PutObject(ctx context.Context, uri string, from io.Reader, size int64) (Object, error) {
	seeker, rewinds := from.(io.Seeker)
	var start int64
	if rewinds {
		var err error
		if start, err = seeker.Seek(0, io.SeekCurrent); err != nil {
			rewinds = false // a pipe calls itself a seeker too
		}
	}
	var stored Object
	sent := false
	err := c.stream(ctx, func(ctx context.Context, p *peer) (bool, bool, error) {
		if sent {
			if !rewinds {
				return false, false, fault.New(fault.Internal, "the coordinator went away in the middle of %s, and the input cannot be read twice: run it again", uri)
			}
			if _, err := seeker.Seek(start, io.SeekStart); err != nil {
				return false, false, fault.New(fault.Internal, "read the input again: %w", err)
			}
		}
		counted := &countingReader{reader: from}
		response, err := putOnce(ctx, p.conn, uri, counted, size)
		sent = sent || counted.n > 0
		if err != nil {
			return false, false, err
		}
		stored = objectOf(response)
		return true, true, nil
	})
	return stored, err
}

type countingReader struct {
	reader io.Reader
	n      int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.reader.Read(p)
	r.n += int64(n)
	return n, err
}

func putOnce(ctx context.Context, conn *grpc.ClientConn, uri string, from io.Reader, size int64) (*claryv1.ObjectInfo, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := claryv1.NewObjectsClient(conn).Put(ctx)
	if err != nil {
		return nil, err
	}
	message := &claryv1.PutObjectRequest{Uri: uri, Size: size}
	for {
		if err := stream.Send(message); errors.Is(err, io.EOF) { // the answer says why
			return stream.CloseAndRecv()
		} else if err != nil {
			return nil, err
		}
		data := make([]byte, sendChunk)
		n, err := io.ReadFull(from, data)
		if n == 0 && errors.Is(err, io.EOF) {
			return stream.CloseAndRecv()
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fault.New(fault.Invalid, "read the input: %w", err)
		}
		message = &claryv1.PutObjectRequest{Data: data[:n]}
	}
}

// GetObject writes an object's bytes from the offset on to a writer, going on at another
// coordinator when one goes away. A whole object is checked against its SHA-256, if it
// has one. begin, if it is not nil, is told about the object before the first byte.
func (c *Client) GetObject(ctx context.Context, uri string, offset int64, to io.Writer, begin func(Object)) (Object, error) {
	get := &getting{uri: uri, offset: offset, to: to, begin: begin}
	if offset == 0 {
		get.digest = sha256.New()
	}
	if err := c.stream(ctx, get.once); err != nil {
		return Object{}, err
	}
	if sum := get.sum(); get.object.SHA256 != "" && sum != "" && sum != get.object.SHA256 {
		return Object{}, fault.New(fault.Internal, "%s arrived with SHA-256 %s, and %s was stored: it is damaged, restore it from where it came", uri, sum, get.object.SHA256)
	}
	return get.object, nil
}

type getting struct {
	uri    string
	offset int64
	to     io.Writer
	begin  func(Object)
	digest hash.Hash // nil if not all of it is read
	object Object
	known  bool
}

func (g *getting) sum() string {
	if g.digest == nil {
		return ""
	}
	return hex.EncodeToString(g.digest.Sum(nil))
}

func (g *getting) once(ctx context.Context, p *peer) (done, heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := claryv1.NewObjectsClient(p.conn).Get(ctx, &claryv1.GetObjectRequest{Uri: g.uri, Offset: g.offset})
	if err != nil {
		return false, false, err
	}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if !g.known || g.offset < g.object.Size {
				return false, heard, fault.New(fault.Unready, "%s ended after %d of %d bytes", g.uri, g.offset, g.object.Size)
			}
			return true, true, nil
		}
		if err != nil {
			return false, heard, err
		}
		if chunk.GetInfo() != nil {
			if err := g.meet(objectOf(chunk.GetInfo())); err != nil {
				return false, heard, err
			}
		}
		if data := chunk.GetData(); len(data) > 0 {
			heard = true
			if _, err := g.to.Write(data); err != nil {
				return false, heard, fault.New(fault.Invalid, "write what came from %s: %w", g.uri, err)
			}
			if g.digest != nil {
				g.digest.Write(data) // never fails
			}
			g.offset += int64(len(data))
		}
	}
}

// meet learns what the object is, and refuses one that was replaced between two streams.
func (g *getting) meet(object Object) error {
	if g.known && object.ETag != g.object.ETag {
		return fault.New(fault.Conflict, "%s was replaced while it was read: read it again", g.uri)
	}
	if !g.known && g.begin != nil {
		g.begin(object)
	}
	g.object, g.known = object, true
	return nil
}

// ListObjects lists one page of what is under a URI: one level, or all if recursive.
func (c *Client) ListObjects(ctx context.Context, uri string, recursive bool, limit int, after string) (Page, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ListObjectsResponse, error) {
		return claryv1.NewObjectsClient(conn).List(ctx, &claryv1.ListObjectsRequest{Uri: uri, Recursive: recursive, Limit: int32(limit), After: after})
	})
	return Page{Objects: each(response.GetObjects(), objectOf), Prefixes: response.GetPrefixes(), Next: response.GetNext()}, err
}

// StatObject tells what is known of an object without its bytes.
func (c *Client) StatObject(ctx context.Context, uri string) (Object, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.ObjectInfo, error) {
		return claryv1.NewObjectsClient(conn).Stat(ctx, &claryv1.StatObjectRequest{Uri: uri})
	})
	return objectOf(response), err
}

// DeleteObject deletes an object, or all below a prefix if recursive, and tells how many.
func (c *Client) DeleteObject(ctx context.Context, uri string, recursive bool) (int64, error) {
	response, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, attempt int) (*claryv1.DeleteObjectResponse, error) {
		response, err := claryv1.NewObjectsClient(conn).Delete(ctx, &claryv1.DeleteObjectRequest{Uri: uri, Recursive: recursive})
		if attempt > 1 && fault.Is(wire.FromStatus(err), fault.NotFound) {
			return &claryv1.DeleteObjectResponse{Deleted: 1}, nil // an earlier attempt did it, and its answer was lost
		}
		return response, err
	})
	return response.GetDeleted(), err
}

// Credentials are the caller's own S3 keys, for programs that speak S3 themselves.
func (c *Client) Credentials(ctx context.Context) (Credentials, error) {
	r, err := call(ctx, c, func(ctx context.Context, conn *grpc.ClientConn, _ int) (*claryv1.CredentialsResponse, error) {
		return claryv1.NewObjectsClient(conn).Credentials(ctx, &claryv1.CredentialsRequest{})
	})
	return Credentials{
		Endpoint: r.GetEndpoint(), Region: r.GetRegion(), AccessKey: r.GetAccessKey(), SecretKey: r.GetSecretKey(), CAPEM: string(r.GetCaPem()),
	}, err
}

func objectOf(info *claryv1.ObjectInfo) Object {
	return Object{URI: info.GetUri(), Size: info.GetSize(), Modified: info.GetModified(), ETag: info.GetEtag(), SHA256: info.GetSha256()}
}
