import { createHash } from 'node:crypto'
import { mkdir, readdir, realpath, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { sequenceS } from 'fp-ts/lib/Apply.js'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { InternVLError, type Issues, invalid, issue, validation } from '../../lib/error.js'
import { ggufPointer } from '../../models/checkpoint/open-weights.js'
import { ggufConfig, readRopeFactors } from '../../models/gguf/gguf-config.js'
import { type GgufFile, openGgufFile } from '../../models/gguf/gguf-file.js'
import { ggufTokenizer } from '../../processors/text/gguf-tokenizer.js'
import { VISUAL_TOKENS } from '../../processors/text/placeholders.js'

/** Whether a name is that of a GGUF file. */
export const isGguf = (name: string): boolean => /\.gguf$/i.test(name)

/** The only file beside a model whose name says that it holds the vision tower. */
const mmprojBeside = async (model: string): Promise<E.Either<Issues, string>> => {
  const names = (await readdir(dirname(model)).catch(() => [])).filter((name) => isGguf(name) && /mmproj/i.test(name))
  const [only, ...others] = names
  if (only && others.length === 0) return E.right(join(dirname(model), only))
  const found = names.length === 0 ? 'there is none beside it' : `there are ${names.length} beside it`
  return invalid('Gguf', `${model}: give the vision tower with --mmproj (mmproj: 'mmproj.gguf'); ${found}`, { file: model })
}

/** A folder name that changes with the paths, sizes and times of the files. */
const folderName = async (paths: readonly string[]): Promise<string> => {
  const hash = createHash('sha256')
  for (const path of paths) {
    const { size, mtimeMs } = await stat(path)
    hash.update(`2 ${path} ${size} ${mtimeMs}\n`)
  }
  return `internvl-gguf-${process.getuid?.() ?? ''}-${hash.digest('hex').slice(0, 24)}`
}

const json = (value: unknown): string => `${JSON.stringify(value, null, 1)}\n`

/** The files of a checkpoint folder that describe a pair of GGUF files. */
const describe = async (model: GgufFile, mmproj: GgufFile): Promise<E.Either<Issues, ReadonlyMap<string, string>>> => {
  const factors = await readRopeFactors(model)
  const tokens = (model.metadata.get('tokenizer.ggml.tokens') ?? []) as readonly string[]
  const id = tokens.indexOf(VISUAL_TOKENS.context_image_token)
  const side = mmproj.metadata.get('clip.vision.image_size')
  const template = model.metadata.get('tokenizer.chat_template')
  const showsImages = typeof template === 'string' && /image/.test(template) // else the template of the published checkpoints
  const eos = ['eos_token_id', 'eot_token_id'].map((name) => model.metadata.get(`tokenizer.ggml.${name}`))
  return pipe(
    sequenceS(validation)({
      config: ggufConfig(model, mmproj, id < 0 ? undefined : id, factors),
      tokenizer: ggufTokenizer(model.metadata, model.path)
    }),
    E.map(({ config, tokenizer }) => {
      const image = {
        size: { height: side, width: side },
        image_mean: mmproj.metadata.get('clip.vision.image_mean'),
        image_std: mmproj.metadata.get('clip.vision.image_std'),
        crop_to_patches: true,
        image_processor_type: 'GotOcr2ImageProcessor'
      }
      const ids = [...new Set(eos.filter((token) => typeof token === 'number'))]
      return new Map([
        ['config.json', json(config)],
        [ggufPointer, json({ model: model.path, mmproj: mmproj.path })],
        ['tokenizer.json', json(tokenizer.tokenizer)],
        ['tokenizer_config.json', json({ ...tokenizer.config, extra_special_tokens: VISUAL_TOKENS })],
        ['processor_config.json', json({ image_seq_length: config.image_seq_length, processor_class: 'InternVLProcessor' })],
        ['preprocessor_config.json', json(image)],
        ...(ids.length > 0 ? [['generation_config.json', json({ eos_token_id: ids })] as const] : []),
        ...(showsImages ? [['chat_template.jinja', template] as const] : [])
      ])
    })
  )
}

/** Writes files to a folder that appears whole; one that another process wrote first stays. */
const writeOnce = async (folder: string, files: ReadonlyMap<string, string>): Promise<void> => {
  const partial = `${folder}.${process.pid}`
  await mkdir(partial, { recursive: true, mode: 0o700 })
  for (const [name, text] of files) await writeFile(join(partial, name), text)
  await rename(partial, folder).catch(async () => rm(partial, { recursive: true, force: true }))
}

/** Whether the folder is there and belongs to this user: others may write to the folder for temporary files. */
const isOwn = async (folder: string): Promise<boolean> => {
  const found = await stat(folder).catch(() => undefined)
  if (!found) return false
  if (process.getuid && found.uid !== process.getuid())
    throw new InternVLError([issue('Gguf', `${folder}: it belongs to another user; remove it, or set TMPDIR`, { file: folder })])
  return true
}

const openBoth = async (model: string, mmproj: string): Promise<readonly [GgufFile, GgufFile]> => {
  const first = await openGgufFile(model)
  try {
    return [first, await openGgufFile(mmproj)]
  } catch (error) {
    await first.close()
    throw error
  }
}

/**
 * A checkpoint folder for a pair of GGUF files: a language model, and its vision tower with projector (by default the only file named
 * `mmproj` beside the model). The folder, in the system's folder for temporary files, has the configuration, the tokenizer and a
 * pointer to the weights, which stay where they are.
 * Errors: `Gguf`, `NoTokenizer`; each names the file.
 */
export const ggufFolder =
  (model: string, mmproj?: string): TaskEither<Issues, string> =>
  async () => {
    try {
      const found = mmproj === undefined ? await mmprojBeside(model) : E.right<Issues, string>(mmproj)
      if (E.isLeft(found)) return found
      const [modelPath, mmprojPath] = await Promise.all([model, found.right].map((path) => realpath(path)))
      const folder = join(tmpdir(), await folderName([modelPath!, mmprojPath!]))
      if (await isOwn(folder)) return E.right(folder)
      const files = await openBoth(modelPath!, mmprojPath!)
      const described = await describe(...files)
      await Promise.all(files.map((file) => file.close()))
      if (E.isLeft(described)) return described
      await writeOnce(folder, described.right)
      return E.right(folder)
    } catch (error) {
      if (error instanceof InternVLError) return E.left(error.issues)
      return E.left([issue('Gguf', `${basename(model)}: it cannot be opened (${(error as Error).message})`, { file: model })])
    }
  }
