/** Values that can be sent to another process: URLs become text, and blobs become bytes once `loaded` has resolved. */
export interface PlainData<T> {
  readonly value: T
  /** Undefined if there is nothing to wait for. */
  readonly loaded: Promise<unknown> | undefined
}

const isPlainRecord = (value: object): boolean => [Object.prototype, null].includes(Object.getPrototypeOf(value))

/** The number of levels of a message: a conversation has five, a JSON schema of a tool may have many. */
const MAX_DEPTH = 200

/** A copy of `value` that can be sent. Throws a `RangeError` that names the first function or object that cannot. */
export const toPlainData = <T>(value: T, name: string): PlainData<T> => {
  const loading: Promise<unknown>[] = []
  const refuse = (path: string, found: string): never => {
    throw new RangeError(`${path}: ${found} cannot be sent to the process of the model; give plain data`)
  }
  const copy = (x: unknown, path: string, depth: number): unknown => {
    if (typeof x === 'function' || typeof x === 'symbol') return refuse(path, `a ${typeof x}`)
    if (typeof x !== 'object' || x === null) return x
    if (depth > MAX_DEPTH) return refuse(path, `data with more than ${MAX_DEPTH} levels`)
    if (x instanceof URL) return x.href
    if (ArrayBuffer.isView(x) || x instanceof ArrayBuffer) return x
    if (!Array.isArray(x) && !isPlainRecord(x)) return refuse(path, `an object of class ${x.constructor?.name}`)
    const target: Record<string, unknown> | unknown[] = Array.isArray(x) ? [] : {}
    for (const [key, inner] of Object.entries(x)) {
      const put = (copied: unknown): void => {
        Object.defineProperty(target, key, { value: copied, enumerable: true, writable: true, configurable: true })
      }
      const at = Array.isArray(x) ? `${path}[${key}]` : `${path}.${key}`
      if (inner instanceof Blob) loading.push(inner.arrayBuffer().then((bytes) => put(new Uint8Array(bytes))))
      else put(copy(inner, at, depth + 1))
    }
    return target
  }
  const plain = copy(value, name, 0) as T
  return { value: plain, loaded: loading.length > 0 ? Promise.all(loading) : undefined }
}
