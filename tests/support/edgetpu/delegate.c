/* Stands in for libedgetpu in tests: TFLite's external delegate interface, which claims edgetpu-custom-op and computes
 * nothing. What the structures hold is of TFLite's stable C interface (tensorflow/lite/core/c/common.h).
 *
 * EDGETPU_STAND_IN says how it behaves: "none" and "busy" give no delegate, "crash" dies in looking at a graph. */
#include <stddef.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define BUILTIN_DELEGATE 51
#define ALLOW_DYNAMIC_TENSORS 1

typedef struct { int size; int data[]; } IntArray;
typedef struct Context Context;
typedef struct Node Node;

typedef struct Registration {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *);
  int (*invoke)(Context *, Node *);
  const char *(*profiling_string)(const Context *, const Node *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *registration_external;
  void *async_kernel;
  uint64_t inplace_operator;
} Registration;

typedef struct Delegate {
  void *data;
  int (*prepare)(Context *, struct Delegate *);
  void *copy_from, *copy_to, *free_buffer;
  int64_t flags;
  void *opaque_builder;
} Delegate;

struct Context {
  size_t tensors_size;
  int (*get_execution_plan)(Context *, IntArray **);
  void *tensors, *impl, *resize_tensor, *report_error, *add_tensors;
  int (*get_node_and_registration)(Context *, int, Node **, Registration **);
  int (*replace_node_subsets)(Context *, Registration, const IntArray *, Delegate *);
};

static int nothing(Context *context, Node *node) { return 0; }

static int behaves(const char *how) {
  const char *wanted = getenv("EDGETPU_STAND_IN");
  return wanted != NULL && strcmp(wanted, how) == 0;
}

static int prepare(Context *context, Delegate *delegate) {
  if (behaves("crash")) raise(SIGSEGV);
  IntArray *plan;
  if (context->get_execution_plan(context, &plan) != 0) return 1;
  IntArray *claimed = calloc(1, sizeof(IntArray) + sizeof(int) * (plan->size + 1));
  for (int i = 0; i < plan->size; ++i) {
    Node *node;
    Registration *registration;
    if (context->get_node_and_registration(context, plan->data[i], &node, &registration) != 0) return 1;
    if (registration->custom_name != NULL && strcmp(registration->custom_name, "edgetpu-custom-op") == 0)
      claimed->data[claimed->size++] = plan->data[i];
  }
  Registration kernel;
  memset(&kernel, 0, sizeof(kernel));
  kernel.prepare = nothing;
  kernel.invoke = nothing;
  kernel.builtin_code = BUILTIN_DELEGATE;
  kernel.custom_name = "EdgeTpuStandIn";
  kernel.version = 1;
  int status = claimed->size ? context->replace_node_subsets(context, kernel, claimed, delegate) : 0;
  free(claimed);
  return status;
}

EXPORT Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  if (behaves("none") || behaves("busy")) return NULL;
  for (size_t i = 0; i < count; ++i)
    if (strcmp(keys[i], "device") == 0 && strstr(values[i], ":7") != NULL) return NULL;
  Delegate *delegate = calloc(1, sizeof(Delegate));
  delegate->prepare = prepare;
  delegate->flags = ALLOW_DYNAMIC_TENSORS;
  return delegate;
}

EXPORT void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }

EXPORT const char *edgetpu_version(void) { return "BuildLabel(COMPILER=stand-in), RuntimeVersion(14)"; }
