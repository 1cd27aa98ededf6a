package transform

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/batch"
	"github.com/clary-ml/clary/serving/batch/driver"
)

// The roles: each server has the driver of its number, which feeds it.
const (
	roleDriver = "driver"
	roleServer = "server"
)

// RetryCodes are the exit codes that are tried again, if the job has retries: what a driver says to be a matter of the
// moment, and those of what was killed. Any other would end the same.
func RetryCodes() []int32 { return []int32{driver.ExitTryAgain, 128 + 9, 128 + 15} }

// Roles are the tasks of the job's one gang.
func (s Spec) Roles() ([]cluster.Role, error) {
	server, err := s.server()
	if err != nil {
		return nil, err
	}
	feeder, err := s.driver()
	if err != nil {
		return nil, err
	}
	return []cluster.Role{feeder, server}, nil
}

func (s Spec) instances() int32 { return max(s.Instances, 1) }

func (s Spec) server() (cluster.Role, error) {
	role, err := s.Role(roleServer, s.instances())
	if err != nil {
		return cluster.Role{}, err
	}
	program := &role.Program
	program.Service, program.Framework = true, cluster.FrameworkHosts // both start when both have what they need
	program.Env = maps.Clone(program.Env)
	if program.Env == nil {
		program.Env = map[string]string{}
	}
	for name, value := range s.environment() {
		if _, own := program.Env[name]; !own {
			program.Env[name] = value
		}
	}
	return role, nil
}

// environment is what a server in a batch transform is told: limits only if the user set them.
func (s Spec) environment() map[string]string {
	env := map[string]string{"SAGEMAKER_BATCH": "true"}
	if s.MaxPayload > 0 {
		env["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = strconv.FormatInt((int64(s.MaxPayload)+1<<20-1)>>20, 10)
	}
	if s.Strategy != "" {
		env["SAGEMAKER_BATCH_STRATEGY"] = strings.ToUpper(string(s.Strategy)) + "_RECORD"
	}
	if s.MaxConcurrent > 0 {
		env["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] = strconv.Itoa(s.MaxConcurrent)
	}
	return env
}

func (s Spec) data() cluster.Input {
	return cluster.Input{
		Channel: "data", Folder: driver.Inputs, URI: s.Input.URI, Mode: s.Input.Mode, Type: s.Input.Type, Gzip: s.Input.Gzip,
		Sharded: s.instances() > 1,
	}
}

func (s Spec) driver() (cluster.Role, error) {
	memory := driver.Memory(s.limits().Else(batch.Limits{Concurrent: guessed}).Else(batch.Defaults()))
	text, err := json.Marshal(driver.Spec{
		Shape: s.shape(), Limits: s.limits(), Tries: s.tries(), Port: int(s.Port), Memory: memory,
		Timeout: cmp.Or(s.InvocationTimeout, quantity.Duration(defaultTimeout)),
		Startup: s.Startup(),
	})
	if err != nil {
		return cluster.Role{}, fmt.Errorf("write the driver's spec: %w", err)
	}
	role := cluster.Role{
		Name: roleDriver, Count: s.instances(), Labels: s.Labels,
		Ask: cluster.Ask{MilliCPU: driverCores, Memory: driverMemory(memory)},
		Program: cluster.Program{
			Command: []string{"clary", "transformer"}, Clary: true, Spec: text, Contract: cluster.ContractProcessing,
			Framework: cluster.FrameworkHosts, Checkpoints: true, Disk: int64(s.Disk), Grace: min(s.GraceTime().Std(), time.Hour),
			Inputs:  []cluster.Input{s.data()},
			Exports: []cluster.Export{{Name: "output", Folder: driver.Outputs, To: s.Output}},
		},
	}
	s.Placement.Apply(&role)
	return role, nil
}

const (
	driverCores = 250 // thousandths: it copies, the server computes
	memoryStep  = 64 << 20
	guessed     = 8 // requests at a time that a server may ask for; more only if the user does
)

// driverMemory is what a driver is given whose requests take so much.
func driverMemory(requests int64) int64 {
	need := requests + driver.Overhead
	return min((need+memoryStep-1)/memoryStep*memoryStep, cluster.MaxMemory)
}
