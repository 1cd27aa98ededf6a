package object

import (
	"context"

	"github.com/minio/minio-go/v7"
)

// Unfinished is an upload in parts that was begun, and neither completed nor given up. Its parts take room, and no listing has them.
type Unfinished struct {
	URI    URI
	ID     string
	Extent // of its parts; Newest is when it was begun if it has none
}

// Unfinished are the uploads in parts below a prefix that go on, or that nobody goes on with.
func (c *Client) Unfinished(ctx context.Context, below URI) ([]Unfinished, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var found []Unfinished
	for told := range c.s3.ListIncompleteUploads(ctx, below.Bucket, below.Key, true) {
		if told.Err != nil {
			return nil, classify("list uploads below", below, told.Err)
		}
		upload := Unfinished{URI: URI{below.Bucket, told.Key}, ID: told.UploadID, Extent: Extent{Newest: told.Initiated}}
		if err := c.parts(ctx, &upload); err != nil {
			return nil, err
		}
		found = append(found, upload)
	}
	return found, nil
}

// parts adds what an upload has.
func (c *Client) parts(ctx context.Context, of *Unfinished) error {
	core := minio.Core{Client: c.s3}
	for after := 0; ; {
		told, err := core.ListObjectParts(ctx, of.URI.Bucket, of.URI.Key, of.ID, after, 1000)
		if minio.ToErrorResponse(err).Code == minio.NoSuchUpload {
			return nil // it has ended
		}
		if err != nil {
			return classify("list the parts of", of.URI, err)
		}
		for _, part := range told.ObjectParts {
			of.Extent = of.Add(part.Size, part.LastModified)
		}
		if after = told.NextPartNumberMarker; !told.IsTruncated {
			return nil
		}
	}
}

// GiveUp ends an upload in parts and deletes those. That it has ended is no error.
func (c *Client) GiveUp(ctx context.Context, upload Unfinished) error {
	core := minio.Core{Client: c.s3}
	err := core.AbortMultipartUpload(ctx, upload.URI.Bucket, upload.URI.Key, upload.ID)
	if minio.ToErrorResponse(err).Code == minio.NoSuchUpload {
		return nil
	}
	return classify("give up the upload of", upload.URI, err)
}
