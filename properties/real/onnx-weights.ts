import { readFile } from 'node:fs/promises'
import { protobufFields, protobufIntegers } from '../../lib/protobuf.js'

/** A float32 tensor of an ONNX model. */
export interface OnnxTensor {
  readonly shape: readonly number[]
  readonly values: Float32Array
}

/** Field numbers of `onnx.proto`. */
const model = { graph: 7 } as const
const graph = { node: 1, initializer: 5 } as const
const node = { input: 1, name: 3, operator: 4 } as const
const tensor = { dims: 1, type: 2, name: 8, raw: 9 } as const
const FLOAT = 1

const text = (value: unknown): string => new TextDecoder().decode(value as Uint8Array)

const numbersOf = (value: number | Uint8Array): readonly number[] =>
  typeof value === 'number' ? [value] : protobufIntegers(value)

const tensorOf = (bytes: Uint8Array): readonly [string, OnnxTensor] | undefined => {
  const fields = [...protobufFields(bytes)]
  const at = (number: number) => fields.find(([field]) => field === number)?.[1]
  const raw = at(tensor.raw)
  if (at(tensor.type) !== FLOAT || !(raw instanceof Uint8Array)) return undefined
  const shape = fields.filter(([field]) => field === tensor.dims).flatMap(([, value]) => numbersOf(value))
  return [text(at(tensor.name)), { shape, values: new Float32Array(Uint8Array.from(raw).buffer) }]
}

/**
 * The float32 weights of an ONNX file. A weight whose name the exporter lost is named after the matrix product that reads it, such as
 * `/encoder/layer.0/mlp/fc1/MatMul`.
 */
export const onnxWeights = async (path: string): Promise<ReadonlyMap<string, OnnxTensor>> => {
  const whole = new Map(protobufFields(await readFile(path)))
  const fields = [...protobufFields(whole.get(model.graph) as Uint8Array)]
  const weights = new Map(
    fields.flatMap(([field, bytes]) => {
      const found = field === graph.initializer ? tensorOf(bytes as Uint8Array) : undefined
      return found ? [found] : []
    })
  )
  const products = fields.flatMap(([field, bytes]): readonly (readonly [string, OnnxTensor])[] => {
    if (field !== graph.node) return []
    const parts = [...protobufFields(bytes as Uint8Array)]
    const texts = (number: number) => parts.filter(([part]) => part === number).map(([, value]) => text(value))
    const read = texts(node.input).flatMap((name) => weights.get(name) ?? [])
    return texts(node.operator)[0] === 'MatMul' ? read.map((weight) => [texts(node.name)[0]!, weight] as const) : []
  })
  return new Map([...weights, ...products])
}
