package object_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// packed is a .tar.gz of files by name; a name that ends with '/' is a folder, and a text
// "-> x" a link.
func packed(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		header := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(files[name]))}
		if strings.HasSuffix(name, "/") {
			header.Typeflag, header.Size = tar.TypeDir, 0
		}
		if link, ok := strings.CutPrefix(files[name], "-> "); ok {
			header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, link, 0
		}
		if err := archive.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if header.Size > 0 {
			if _, err := archive.Write([]byte(files[name])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if archive.Close() != nil || zipped.Close() != nil {
		t.Fatal("it cannot be packed")
	}
	return out.Bytes()
}

// unpacked reads it back, and fails if a name is there twice.
func unpacked(t testing.TB, text []byte) map[string]string {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(zipped); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return files
		}
		content, errRead := io.ReadAll(archive)
		if err != nil || errRead != nil {
			t.Fatal(err, errRead)
		}
		if _, there := files[header.Name]; there {
			t.Errorf("%s is there twice", header.Name)
		}
		files[header.Name] = string(content)
		if header.Typeflag == tar.TypeSymlink {
			files[header.Name] = "-> " + header.Linkname
		}
	}
}

func part(name string, text []byte) object.Part {
	return object.Part{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }}
}

func TestModelsOfSeveralHostsBecomeOneAndClashesAreNamed(t *testing.T) {
	parts := []object.Part{
		part("worker-0", packed(t, map[string]string{"config.json": "{}", "shards/": "", "shards/0": "zero", "last": "-> shards/0", "same": "s"})),
		part("worker-1", packed(t, map[string]string{"config.json": "{1}", "shards/": "", "shards/1": "one", "last": "-> shards/1", "same": "s"})),
		part("worker-2", packed(t, map[string]string{"shards/": "", "shards/2": "two", "config.json": "{}"})),
	}
	var out bytes.Buffer
	clashes, err := object.Merge(&out, parts)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"config.json": "{}", "shards/": "", "shards/0": "zero", "shards/1": "one", "shards/2": "two", "last": "-> shards/0", "same": "s"}
	if got := unpacked(t, out.Bytes()); !maps.Equal(got, want) {
		t.Errorf("merged is %v", got)
	}
	if want := []object.Clash{{Name: "config.json", Part: "worker-1"}, {Name: "last", Part: "worker-1"}}; !reflect.DeepEqual(clashes, want) {
		t.Errorf("clashes are %v", clashes)
	}
	var again bytes.Buffer
	if _, err := object.Merge(&again, parts); err != nil || !bytes.Equal(again.Bytes(), out.Bytes()) {
		t.Errorf("the same parts make other bytes: %v", err)
	}
}

func TestWhatIsNoArchiveIsNotMerged(t *testing.T) {
	whole := packed(t, map[string]string{"a": strings.Repeat("x", 10_000)})
	for name, text := range map[string][]byte{"empty": nil, "text": []byte("not gzip"), "cut": whole[:len(whole)/2]} {
		_, err := object.Merge(io.Discard, []object.Part{part("worker-0", whole), part("worker-1", text)})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "worker-1") {
			t.Errorf("%s: %v", name, err)
		}
	}
	cut := object.Part{Name: "worker-0", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(whole[:len(whole)/2]), iotest.ErrReader(io.ErrUnexpectedEOF))), nil
	}}
	if _, err := object.Merge(io.Discard, []object.Part{cut}); !fault.Is(err, fault.Unready) {
		t.Errorf("a connection that was cut: %v", err)
	}
	reader, writer := io.Pipe()
	_ = reader.CloseWithError(fault.New(fault.Denied, "no room for you"))
	if _, err := object.Merge(writer, []object.Part{part("worker-0", whole)}); !fault.Is(err, fault.Denied) {
		t.Errorf("a store that takes nothing: %v", err)
	}
	unready := object.Part{Name: "worker-0", Open: func() (io.ReadCloser, error) { return nil, fault.New(fault.Unready, "no store") }}
	if _, err := object.Merge(io.Discard, []object.Part{unready}); !fault.Is(err, fault.Unready) {
		t.Errorf("a store that is away: %v", err)
	}
}

// Every file of every part is in the merged archive, or named as a clash.
func TestMergeLosesNothingInSilence(t *testing.T) {
	clashed := 0
	rapid.Check(t, func(r *rapid.T) {
		var parts []object.Part
		var all []map[string]string
		for i := range rapid.IntRange(1, 4).Draw(r, "parts") {
			files := rapid.MapOf(rapid.StringMatching(`[ab]{1,2}`), rapid.StringMatching(`[xy]?`)).Draw(r, "files")
			all = append(all, files)
			parts = append(parts, part(fmt.Sprint(i), packed(t, files)))
		}
		var out bytes.Buffer
		clashes, err := object.Merge(&out, parts)
		if err != nil {
			r.Fatal(err)
		}
		merged := unpacked(t, out.Bytes())
		for i, files := range all {
			for name, text := range files {
				told := slices.Contains(clashes, object.Clash{Name: path.Clean(name), Part: fmt.Sprint(i)})
				if (merged[name] != text) != told {
					r.Fatalf("%s of part %d is %q, merged %q, clashes %v", name, i, text, merged[name], clashes)
				}
				if told {
					clashed++
				}
			}
		}
	})
	if clashed == 0 {
		t.Error("nothing clashed")
	}
}
