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

// objects serves the object store to users who bring a token instead of S3 keys.
type objects struct {
	claryv1.UnimplementedObjectsServer
	store       func() (*object.Client, error)
	credentials func(Identity) (*claryv1.CredentialsResponse, error)
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
	all, err := store.List(ctx, uri)
	if err != nil {
		return nil, err
	}
	return page(all, uri.Key, request, limit), nil
}

// page is one answer's share of the objects under a prefix. Where the listing does not
// go deeper, keys that have a further slash are told as the prefix up to it.
func page(all []object.Info, prefix string, request *claryv1.ListObjectsRequest, limit int) *claryv1.ListObjectsResponse {
	answer, folder := &claryv1.ListObjectsResponse{}, ""
	for _, info := range all {
		key := info.URI.Key
		if key <= request.GetAfter() {
			continue
		}
		if folder != "" && strings.HasPrefix(key, folder) {
			answer.Next = key
			continue
		}
		if len(answer.Objects)+len(answer.Prefixes) == limit {
			return answer
		}
		answer.Next = key
		if slash := strings.IndexByte(key[len(prefix):], '/'); slash >= 0 && !request.GetRecursive() {
			folder = key[:len(prefix)+slash+1]
			answer.Prefixes = append(answer.Prefixes, object.URI{Bucket: info.URI.Bucket, Key: folder}.String())
			continue
		}
		answer.Objects = append(answer.Objects, objectInfo(info))
	}
	answer.Next = ""
	return answer
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
