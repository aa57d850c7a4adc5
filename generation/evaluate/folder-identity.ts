import { createHash, type Hash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'

/** Files up to this size are hashed whole; of larger ones, slices at equal distances. */
const MAX_WHOLE = 16 * 2 ** 20
const SLICE = 4096

/** Hashes the size of a file and its bytes; of a large file, a slice of 4 KiB every 64 KiB, and at most 32,768 slices. */
const hashContent = (hash: Hash, file: string, size: number): void => {
  hash.update(`${size}\n`)
  const step = size <= MAX_WHOLE ? MAX_WHOLE : Math.max(16 * SLICE, Math.ceil(size / 2 ** 15))
  const buffer = Buffer.alloc(size <= MAX_WHOLE ? size : SLICE)
  const fd = openSync(file, 'r')
  try {
    for (let position = 0; position < size; position += step)
      hash.update(buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, position)))
  } finally {
    closeSync(fd)
  }
}

/** Files of a folder that change the answers of a model: weights, configuration, tokenizer, processor and chat template. */
const isModelFile = (name: string): boolean => /\.(json|jinja|safetensors|model|txt)$/.test(name)

/** Files of a folder whose content counts: those of the model, and instead of a pointer to GGUF files (`gguf.json`) these files. */
const contentFiles = async (dir: string, name: string): Promise<readonly string[]> => {
  const file = join(dir, name)
  if (name !== 'gguf.json') return [file]
  const { model, mmproj } = JSON.parse(await readFile(file, 'utf8')) as Readonly<Record<string, string>>
  return [model, mmproj].filter((path) => path !== undefined)
}

/**
 * Identity of a checkpoint or adapter folder by content: a SHA-256 of the names, sizes and bytes of its files. Two copies of a
 * folder are equal; a folder with other weights, even of the same sizes, is not. Large files are sampled, so that gigabytes cost
 * less than a second.
 */
export const folderIdentity = async (dir: string): Promise<string> => {
  const hash = createHash('sha256')
  for (const name of (await readdir(dir)).filter(isModelFile).sort()) {
    hash.update(`${name}\n`)
    for (const file of await contentFiles(dir, name)) hashContent(hash, file, (await stat(file)).size)
  }
  return hash.digest('hex')
}
