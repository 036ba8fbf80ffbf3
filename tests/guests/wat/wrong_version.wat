;; A valid component whose `functions` are of a version that this host doesn't serve.
(component
  (instance $functions)
  (export "convoke:runtime/functions@9.0.0" (instance $functions)))
