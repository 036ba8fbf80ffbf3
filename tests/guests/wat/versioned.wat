;; A component of which there are as many versions as digits: the test puts one in the place of the word below. Its one
;; function, the query `which`, returns that digit.
(component
  (import "convoke:runtime/types@0.1.0" (instance $types
    (type $fields (record (field "code" string) (field "message" string) (field "data" (option string))))
    (export "error" (type (eq $fields)))))
  (alias export $types "error" (type $error))

  (core module $module
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 4096))

    ;; The length of the manifest stands at `manifest` below.
    (data (i32.const 1024) "{\"version\":1,\"functions\":[{\"name\":\"which\",\"kind\":\"query\",\"args\":{\"type\":\"object\",\"additionalProperties\":false},\"returns\":{\"type\":\"integer\"}}],\"tables\":[]}")
    (data (i32.const 2048) "VERSION")

    ;; Arguments only ever come in; nothing is given back.
    (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
      (local $start i32)
      (local.set $start (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $start) (local.get $size)))
      (local.get $start))

    (func (export "manifest") (result i32)
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 154))
      (i32.const 0))

    (func (export "call") (param i32 i32 i32 i32) (result i32)
      (i32.store8 (i32.const 16) (i32.const 0))
      (i32.store (i32.const 20) (i32.const 2048))
      (i32.store (i32.const 24) (i32.const 1))
      (i32.const 16)))

  (core instance $instance (instantiate $module))
  (alias core export $instance "memory" (core memory $memory))
  (alias core export $instance "cabi_realloc" (core func $realloc))

  (func $manifest (result string)
    (canon lift (core func $instance "manifest") (memory $memory) (realloc $realloc)))
  (func $call (param "name" string) (param "args" string) (result (result string (error $error)))
    (canon lift (core func $instance "call") (memory $memory) (realloc $realloc)))

  (instance $functions
    (export "manifest" (func $manifest))
    (export "call" (func $call)))
  (export "convoke:runtime/functions@0.1.0" (instance $functions)))
