;; A component of two modules, each with a memory and a table of its own. Its functions grow both until the host ends the
;; call: each alone stays within what an instance may have, both together do not. `memories` and `tables` are queries.
(component
  (import "convoke:runtime/types@0.1.0" (instance $types
    (type $fields (record (field "code" string) (field "message" string) (field "data" (option string))))
    (export "error" (type (eq $fields)))))
  (alias export $types "error" (type $error))

  (core module $other
    (memory 1)
    (table $table 1 funcref)
    (func (export "grow_memory") (param i32) (result i32) (memory.grow (local.get 0)))
    (func (export "grow_table") (param i32) (result i32) (table.grow $table (ref.null func) (local.get 0))))

  (core module $module
    (import "other" "grow_memory" (func $grow_memory (param i32) (result i32)))
    (import "other" "grow_table" (func $grow_table (param i32) (result i32)))
    (memory (export "memory") 1)
    (table $table 1 funcref)
    (global $free (mut i32) (i32.const 4096))

    ;; The length of the manifest stands at `manifest` below.
    (data (i32.const 1024) "{\"version\":1,\"functions\":[{\"name\":\"memories\",\"kind\":\"query\",\"args\":{\"type\":\"object\",\"additionalProperties\":false},\"returns\":{\"type\":\"null\"}},{\"name\":\"tables\",\"kind\":\"query\",\"args\":{\"type\":\"object\",\"additionalProperties\":false},\"returns\":{\"type\":\"null\"}}],\"tables\":[]}")
    (data (i32.const 2048) "null")

    ;; Arguments only ever come in; nothing is given back.
    (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
      (local $start i32)
      (local.set $start (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $start) (local.get $size)))
      (local.get $start))

    (func (export "manifest") (result i32)
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 267))
      (i32.const 0))

    ;; The names differ in their first letter: `m` is 109.
    (func (export "call") (param $name i32) (param i32 i32 i32) (result i32)
      (if (i32.eq (i32.load8_u (local.get $name)) (i32.const 109))
        (then
          ;; 40 MiB each.
          (drop (memory.grow (i32.const 640)))
          (drop (call $grow_memory (i32.const 640))))
        (else
          (drop (table.grow $table (ref.null func) (i32.const 12000)))
          (drop (call $grow_table (i32.const 12000)))))
      (i32.store8 (i32.const 16) (i32.const 0))
      (i32.store (i32.const 20) (i32.const 2048))
      (i32.store (i32.const 24) (i32.const 4))
      (i32.const 16)))

  (core instance $others (instantiate $other))
  (core instance $instance (instantiate $module (with "other" (instance $others))))
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
