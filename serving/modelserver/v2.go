package modelserver

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/version"
	"github.com/clary-ml/clary/serving/modelserver/oip"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// serverName is how the server calls itself by the protocol.
const serverName = "clary"

// extensions of the protocol that are known.
var extensions = []string{"binary_tensor_data"}

// routeV2 adds the Open Inference Protocol over REST.
func (s *Server) routeV2(mux *http.ServeMux) {
	mux.HandleFunc("GET /v2/health/live", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /v2/health/ready", s.ping)
	for _, root := range []string{"GET /v2", "GET /v2/{$}"} {
		mux.HandleFunc(root, func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, map[string]any{"name": serverName, "version": version.String(), "extensions": extensions})
		})
	}
	infer := s.counted("v2", s.inferREST)
	for _, model := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		mux.Handle("GET "+model, s.named(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.metadata()) })))
		mux.Handle("GET "+model+"/ready", s.named(http.HandlerFunc(s.ping)))
		mux.Handle("POST "+model+"/infer", s.named(infer))
	}
}

// named refuses requests for another model.
func (s *Server) named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.has(r.PathValue("model"), r.PathValue("version")); err != nil {
			s.fail(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// has reports whether a model is the one that is served; "" is any version.
func (s *Server) has(model, version string) error {
	if model != s.options.Name {
		return fault.New(fault.NotFound, "model %q is not served here: ask for %q", clip(model), s.options.Name)
	}
	if version != "" && version != s.options.Version {
		return fault.New(fault.NotFound, "version %q of model %q is not served here: ask for %q", clip(version), model, s.options.Version)
	}
	return nil
}

func clip(text string) string {
	if len(text) > 60 {
		return text[:60] + "…"
	}
	return text
}

type portJSON struct {
	Name     string      `json:"name"`
	Datatype tensor.Type `json:"datatype"`
	Shape    []int64     `json:"shape"`
}

func portsJSON(ports []tensor.Port) []portJSON {
	out := make([]portJSON, len(ports))
	for i, p := range ports {
		out[i] = portJSON{p.Name, p.Type, p.Shape}
	}
	return out
}

func (s *Server) metadata() any {
	return map[string]any{
		"name": s.options.Name, "versions": []string{s.options.Version}, "platform": s.signature.Platform,
		"inputs": portsJSON(s.signature.Inputs), "outputs": portsJSON(s.signature.Outputs),
	}
}

func writeJSON(w http.ResponseWriter, value any) {
	text, _ := json.Marshal(value) // of strings and numbers alone
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n'))
}

// inferREST answers tensors as JSON, or as bytes behind it.
func (s *Server) inferREST(w http.ResponseWriter, r *http.Request) error {
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	request, err := oip.ParseRequest(body, r.Header.Get(oip.LengthHeader))
	if err != nil {
		return err
	}
	outputs, err := s.infer(r.Context(), request.Inputs)
	if err != nil {
		return err
	}
	picked, binary, err := request.Pick(outputs)
	if err != nil {
		return err
	}
	response := oip.Response{Model: s.options.Name, Version: s.options.Version, ID: request.ID, Outputs: picked}
	text, length, err := response.Encode(binary)
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	if length > 0 {
		header.Set(oip.LengthHeader, strconv.Itoa(length))
		header.Set("Content-Type", "application/octet-stream")
	}
	header.Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // the client may have gone
	return nil
}
