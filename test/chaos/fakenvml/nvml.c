/* A libnvidia-ml.so.1 with two GPUs, for machines without any: the agent's real binding
 * loads it. Every call stops for as long as the file that CLARY_TEST_NVML_HANG names is
 * there, as a broken driver's calls do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } utilization_t;

static const char *names[] = {"GPU-00000000-0000-0000-0000-00000000000a", "GPU-00000000-0000-0000-0000-00000000000b"};

static int answer(void) {
  const char *hang = getenv("CLARY_TEST_NVML_HANG");
  while (hang != NULL && access(hang, F_OK) == 0) usleep(10000);
  return 0;
}

static int text(char *to, unsigned int size, const char *from) {
  snprintf(to, size, "%s", from);
  return answer();
}

int nvmlInit_v2(void) { return answer(); }
int nvmlInitWithFlags(unsigned int flags) { (void)flags; return answer(); }
int nvmlShutdown(void) { return answer(); }
const char *nvmlErrorString(int code) { return code == 0 ? "success" : "error"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return answer(); }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
  if (index > 1) return 2; /* invalid argument */
  *device = (void *)names[index];
  return answer();
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int size) { return text(uuid, size, (const char *)device); }
int nvmlDeviceGetName(void *device, char *name, unsigned int size) { (void)device; return text(name, size, "NVIDIA A100-SXM4-40GB"); }
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
  (void)device;
  memory->total = 40ULL << 30;
  memory->used = 1ULL << 30;
  memory->free = memory->total - memory->used;
  return answer();
}
int nvmlDeviceGetUtilizationRates(void *device, utilization_t *rates) {
  (void)device;
  rates->gpu = 50;
  rates->memory = 25;
  return answer();
}
int nvmlDeviceGetPowerUsage(void *device, unsigned int *milliwatts) {
  (void)device;
  *milliwatts = 250500;
  return answer();
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned int *celsius) {
  (void)device;
  (void)sensor;
  *celsius = 61;
  return answer();
}
