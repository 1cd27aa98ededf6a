package rpc

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/storage/object"
)

// chunk is how many bytes of an object travel in one message.
const chunk = 256 << 10

// An upload holds a part of an object, 16 MiB, and the next message; a download two chunks.
const maxUploads, maxDownloads = 64, 256

// objects serves the object store to users who bring a token instead of S3 keys.
type objects struct {
	claryv1.UnimplementedObjectsServer
	store       func() (*object.Client, error)
	credentials func(Identity) (*claryv1.CredentialsResponse, error)
	up, down    seats
}

func newObjects(store func() (*object.Client, error), credentials func(Identity) (*claryv1.CredentialsResponse, error)) *objects {
	return &objects{store: store, credentials: credentials, up: newSeats(maxUploads, "objects are uploaded"), down: newSeats(maxDownloads, "objects are downloaded")}
}

// open returns the store and the parsed name of an object in it.
func (s *objects) open(uri string) (*object.Client, object.URI, error) {
	parsed, err := object.ParseURI(uri)
	if err != nil {
		return nil, parsed, fault.New(fault.Invalid, "uri: %w", err)
	}
	store, err := s.store()
	return store, parsed, err
}

func (s *objects) Put(stream grpc.ClientStreamingServer[claryv1.PutObjectRequest, claryv1.ObjectInfo]) error {
	rise, err := s.up.take(stream.Context())
	if err != nil {
		return err
	}
	defer rise()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	store, uri, err := s.open(first.GetUri())
	if err != nil {
		return err
	}
	if uri.Key == "" {
		return fault.New(fault.Invalid, "uri: %q names a bucket: add the object's key", first.GetUri())
	}
	if err := store.EnsureBucket(stream.Context(), uri.Bucket); err != nil {
		return err
	}
	info, err := store.Put(stream.Context(), uri, &incoming{stream: stream, rest: first.GetData()}, first.GetSize())
	if err != nil {
		return err
	}
	return stream.SendAndClose(objectInfo(info))
}

// incoming reads the data of a stream of put requests.
type incoming struct {
	stream grpc.ClientStreamingServer[claryv1.PutObjectRequest, claryv1.ObjectInfo]
	rest   []byte
}

func (r *incoming) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		message, err := r.stream.Recv()
		if err != nil {
			return 0, err // io.EOF when the client has sent all
		}
		r.rest = message.GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (s *objects) Get(request *claryv1.GetObjectRequest, stream grpc.ServerStreamingServer[claryv1.ObjectChunk]) error {
	rise, err := s.down.take(stream.Context())
	if err != nil {
		return err
	}
	defer rise()
	store, uri, err := s.open(request.GetUri())
	if err != nil {
		return err
	}
	info, err := store.Stat(stream.Context(), uri)
	if err != nil {
		return err
	}
	length := request.GetLength()
	if length == 0 {
		length = -1 // to the end
	}
	body, err := store.Get(stream.Context(), uri, request.GetOffset(), length)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := stream.Send(&claryv1.ObjectChunk{Info: objectInfo(info)}); err != nil {
		return err
	}
	for {
		data := make([]byte, chunk) // gRPC may hold a sent message's bytes: no reuse
		n, err := io.ReadFull(body, data)
		if n > 0 {
			if err := stream.Send(&claryv1.ObjectChunk{Data: data[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return fault.New(fault.Unready, "read %s: %w", request.GetUri(), err)
		}
	}
}

func (s *objects) List(ctx context.Context, request *claryv1.ListObjectsRequest) (*claryv1.ListObjectsResponse, error) {
	store, uri, err := s.open(request.GetUri())
	if err != nil {
		return nil, err
	}
	limit := int(request.GetLimit())
	if limit <= 0 || limit > maxPage {
		limit = defaultPage
	}
	pages := &pager{request: request, prefix: uri.Key, limit: limit}
	if err := store.Each(ctx, uri, request.GetAfter(), pages.take); err != nil {
		return nil, err
	}
	return pages.end(), nil
}

// pager makes one answer's share of the objects under a prefix, which it is told one by one, however many there are. Where the
// listing does not go deeper, keys that have a further slash are told as the prefix up to it.
type pager struct {
	request *claryv1.ListObjectsRequest
	prefix  string
	limit   int

	answer claryv1.ListObjectsResponse
	folder string // that was told last
	full   bool
}

// take takes the next object, and reports whether there is room for more.
func (p *pager) take(info object.Info) bool {
	key := info.URI.Key
	if key <= p.request.GetAfter() {
		return true
	}
	if p.folder != "" && strings.HasPrefix(key, p.folder) {
		p.answer.Next = key
		return true
	}
	if p.full = len(p.answer.Objects)+len(p.answer.Prefixes) == p.limit; p.full {
		return false
	}
	p.answer.Next = key
	if slash := strings.IndexByte(key[len(p.prefix):], '/'); slash >= 0 && !p.request.GetRecursive() {
		p.folder = key[:len(p.prefix)+slash+1]
		p.answer.Prefixes = append(p.answer.Prefixes, object.URI{Bucket: info.URI.Bucket, Key: p.folder}.String())
		return true
	}
	p.answer.Objects = append(p.answer.Objects, objectInfo(info))
	return true
}

// end is the answer, when there is nothing more or no room for it.
func (p *pager) end() *claryv1.ListObjectsResponse {
	if !p.full {
		p.answer.Next = ""
	}
	return &p.answer
}

func (s *objects) Stat(ctx context.Context, request *claryv1.StatObjectRequest) (*claryv1.ObjectInfo, error) {
	store, uri, err := s.open(request.GetUri())
	if err != nil {
		return nil, err
	}
	info, err := store.Stat(ctx, uri)
	if err != nil {
		return nil, err
	}
	return objectInfo(info), nil
}

func (s *objects) Delete(ctx context.Context, request *claryv1.DeleteObjectRequest) (*claryv1.DeleteObjectResponse, error) {
	store, uri, err := s.open(request.GetUri())
	if err != nil {
		return nil, err
	}
	if request.GetRecursive() {
		deleted, err := store.DeletePrefix(ctx, uri)
		return &claryv1.DeleteObjectResponse{Deleted: deleted.Objects}, err
	}
	if _, err := store.Stat(ctx, uri); err != nil {
		return nil, err
	}
	return &claryv1.DeleteObjectResponse{Deleted: 1}, store.Delete(ctx, uri)
}

func (s *objects) Credentials(ctx context.Context, _ *claryv1.CredentialsRequest) (*claryv1.CredentialsResponse, error) {
	return s.credentials(caller(ctx))
}

func objectInfo(info object.Info) *claryv1.ObjectInfo {
	return &claryv1.ObjectInfo{
		Uri: info.URI.String(), Size: info.Size, Modified: info.Modified.UnixNano(), Etag: info.ETag, Sha256: info.SHA256,
	}
}
