package network

import (
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
	"gorgonia.org/gorgonia"
)

// BLAS multiplies matrices. It can be handed to gorgonia.Use.
type BLAS interface {
	gorgonia.BLAS
	// String names the library and says how it computes, for logs and manifests.
	String() string
}

// libraries are the names under which OpenBLAS is looked for, in order.
var libraries = []string{"libopenblas.so.0", "libopenblas.so"}

// OpenBLAS loads OpenBLAS from the system and lets it use so many threads.
func OpenBLAS(threads int) (BLAS, error) {
	var handle uintptr
	var err error
	for _, name := range libraries {
		if handle, err = purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load OpenBLAS: %w", err)
	}
	return bindOpenBLAS(handle, threads)
}

// Gonum is the BLAS that is always there.
func Gonum() BLAS { return plain{} }

// FindBLAS is OpenBLAS where the system has it, else gonum's, with a line for the log
// that says which and why.
func FindBLAS(threads int) (BLAS, string) {
	b, err := OpenBLAS(threads)
	if err != nil {
		return Gonum(), fmt.Sprintf("matrix library: gonum, several times slower than OpenBLAS, which was not found (%v): install libopenblas0", err)
	}
	return b, fmt.Sprintf("matrix library: %s, %d threads", b, threads)
}

type plain struct{ gonum.Implementation }

func (plain) String() string { return "gonum" }

// open is gonum's BLAS with the products of matrices done by OpenBLAS.
type open struct {
	gonum.Implementation
	config string
	sgemm  func(order, transA, transB, m, n, k int32, alpha float32, a unsafe.Pointer, lda int32, b unsafe.Pointer, ldb int32, beta float32, c unsafe.Pointer, ldc int32)
	dgemm  func(order, transA, transB, m, n, k int32, alpha float64, a unsafe.Pointer, lda int32, b unsafe.Pointer, ldb int32, beta float64, c unsafe.Pointer, ldc int32)
}

// rowMajor, noTrans and trans are CBLAS's numbers.
const (
	rowMajor = 101
	noTrans  = 111
	trans    = 112
)

// bindOpenBLAS finds the functions. Another library of the same name may lack one.
func bindOpenBLAS(handle uintptr, threads int) (b BLAS, err error) {
	symbols := map[string]uintptr{}
	for _, name := range []string{"cblas_sgemm", "cblas_dgemm", "openblas_set_num_threads", "openblas_get_config"} {
		if symbols[name], err = purego.Dlsym(handle, name); err != nil {
			return nil, fmt.Errorf("load OpenBLAS: %w", err)
		}
	}
	o := &open{}
	var setThreads func(int32)
	var config func() string
	purego.RegisterFunc(&o.sgemm, symbols["cblas_sgemm"])
	purego.RegisterFunc(&o.dgemm, symbols["cblas_dgemm"])
	purego.RegisterFunc(&setThreads, symbols["openblas_set_num_threads"])
	purego.RegisterFunc(&config, symbols["openblas_get_config"])
	setThreads(int32(max(threads, 1)))
	o.config = config()
	return o, nil
}

func (o *open) String() string { return o.config }

// Sgemm computes C = alpha A B + beta C. The lengths are checked here, because beyond
// them the library would write anywhere.
func (o *open) Sgemm(tA, tB blas.Transpose, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	if m == 0 || n == 0 || k == 0 || !fits(tA, m, k, lda, len(a)) || !fits(tB, k, n, ldb, len(b)) || !fits(blas.NoTrans, m, n, ldc, len(c)) {
		o.Implementation.Sgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) // panics with the reason
		return
	}
	o.sgemm(rowMajor, number(tA), number(tB), int32(m), int32(n), int32(k), alpha,
		unsafe.Pointer(&a[0]), int32(lda), unsafe.Pointer(&b[0]), int32(ldb), beta, unsafe.Pointer(&c[0]), int32(ldc))
}

// Dgemm is Sgemm for float64.
func (o *open) Dgemm(tA, tB blas.Transpose, m, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
	if m == 0 || n == 0 || k == 0 || !fits(tA, m, k, lda, len(a)) || !fits(tB, k, n, ldb, len(b)) || !fits(blas.NoTrans, m, n, ldc, len(c)) {
		o.Implementation.Dgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	o.dgemm(rowMajor, number(tA), number(tB), int32(m), int32(n), int32(k), alpha,
		unsafe.Pointer(&a[0]), int32(lda), unsafe.Pointer(&b[0]), int32(ldb), beta, unsafe.Pointer(&c[0]), int32(ldc))
}

func number(t blas.Transpose) int32 {
	if t == blas.NoTrans {
		return noTrans
	}
	return trans
}

// fits reports whether a matrix that is rows by cols once transposed lies in a slice.
func fits(t blas.Transpose, rows, cols, stride, length int) bool {
	if t != blas.NoTrans {
		rows, cols = cols, rows
	}
	return rows >= 0 && cols >= 0 && stride >= max(cols, 1) && length >= (rows-1)*stride+cols
}
