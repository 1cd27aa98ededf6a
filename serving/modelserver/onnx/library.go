package onnx

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/clary-ml/clary/internal/fault"
)

// names are those under which the library is looked for, in order.
var names = []string{"libonnxruntime.so.1", "libonnxruntime.so"}

// The places of the functions in the library's table, which only ever grows at its end
// (onnxruntime_c_api.h, struct OrtApi).
const (
	getErrorMessage                = 2
	createEnv                      = 3
	createSession                  = 7
	runSession                     = 9
	createSessionOptions           = 10
	setIntraOpNumThreads           = 24
	sessionGetInputCount           = 30
	sessionGetOutputCount          = 31
	sessionGetInputTypeInfo        = 33
	sessionGetOutputTypeInfo       = 34
	sessionGetInputName            = 36
	sessionGetOutputName           = 37
	createTensorAsOrtValue         = 48
	createTensorWithDataAsOrtValue = 49
	getTensorMutableData           = 51
	fillStringTensor               = 52
	getStringTensorDataLength      = 53
	getStringTensorContent         = 54
	castTypeInfoToTensorInfo       = 55
	getTensorElementType           = 60
	getDimensionsCount             = 61
	getDimensions                  = 62
	getTensorTypeAndShape          = 65
	createCPUMemoryInfo            = 69
	allocatorFree                  = 76
	getAllocatorWithDefaultOptions = 78
	releaseEnv                     = 92
	releaseStatus                  = 93
	releaseMemoryInfo              = 94
	releaseSession                 = 95
	releaseValue                   = 96
	releaseTypeInfo                = 98
	releaseTensorTypeAndShapeInfo  = 99
	releaseSessionOptions          = 100
	tableLength                    = 101
)

// apiVersion is the table's that is asked for: the first has all that is used here.
const apiVersion = 1

// library is onnxruntime, found at run time.
type library struct {
	table   *[tableLength]uintptr
	version string
}

// handle is something of the library's, by its address.
type handle = uintptr

// find opens the library at a path, or where the system has it.
func find(path string) (*library, error) {
	candidates := names
	if path != "" {
		candidates = []string{path}
	}
	var errs []error
	for _, name := range candidates {
		opened, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err == nil {
			return bind(opened)
		}
		errs = append(errs, err)
	}
	return nil, fault.New(fault.NotFound, "onnxruntime is not here: pip install onnxruntime, and name its onnxruntime/capi/libonnxruntime.so.* by --onnxruntime or CLARY_ONNXRUNTIME: %w", errors.Join(errs...))
}

func bind(opened uintptr) (*library, error) {
	symbol, err := purego.Dlsym(opened, "OrtGetApiBase")
	if err != nil {
		return nil, fault.New(fault.Invalid, "the library is not onnxruntime: %w", err)
	}
	var base func() *[2]uintptr
	purego.RegisterFunc(&base, symbol)
	functions := base()
	if functions == nil {
		return nil, fault.New(fault.Invalid, "onnxruntime gives no functions")
	}
	var api func(uint32) *[tableLength]uintptr
	var version func() string
	purego.RegisterFunc(&api, functions[0])
	purego.RegisterFunc(&version, functions[1])
	l := &library{table: api(apiVersion), version: version()}
	if l.table == nil {
		return nil, fault.New(fault.Invalid, "onnxruntime %s does not know version %d of its interface", l.version, apiVersion)
	}
	return l, nil
}

// call calls a function that answers with a status. What arguments point to is pinned by the
// caller: an address that is a number does not keep a value from being moved with its stack.
func (l *library) call(function int, args ...uintptr) error {
	status, _, _ := purego.SyscallN(l.table[function], args...)
	if status == 0 {
		return nil
	}
	text, _, _ := purego.SyscallN(l.table[getErrorMessage], status)
	message := goString(text)
	l.release(releaseStatus, status)
	return fault.New(fault.Invalid, "onnxruntime: %s", message)
}

// release frees a handle; that of nothing is none.
func (l *library) release(function int, h handle) {
	if h != 0 {
		purego.SyscallN(l.table[function], h)
	}
}

// get calls a function whose last argument is where it writes a handle or a number.
func (l *library) get(function int, args ...uintptr) (handle, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	out := new(uintptr)
	err := l.call(function, append(args, at(&pin, out))...)
	return *out, err
}

// at is where a value is, which the pinner keeps there.
func at[T any](pin *runtime.Pinner, value *T) uintptr {
	pin.Pin(value)
	return uintptr(unsafe.Pointer(value))
}

// pointer is an address that the library gave. Reading it this way tells vet that it is no Go
// pointer that was kept as a number.
func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

// maxName bounds a text that ends with a zero.
const maxName = 1 << 16

func goString(address uintptr) string {
	if address == 0 {
		return ""
	}
	text := (*[maxName]byte)(pointer(address))
	n := 0
	for n < maxName-1 && text[n] != 0 {
		n++
	}
	return string(text[:n])
}

// cString is a text as C reads it; the pinner keeps it where it is.
func cString(pin *runtime.Pinner, text string) uintptr {
	return at(pin, unsafe.SliceData(append([]byte(text), 0)))
}

func (l *library) String() string { return fmt.Sprintf("onnxruntime %s", l.version) }
