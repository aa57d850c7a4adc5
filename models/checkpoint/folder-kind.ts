import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Issue, issue } from '../../lib/error.js'

const pointerStart = 'version https://git-lfs'

/** Whether a file is a pointer of git-lfs: a text of about 130 bytes in the place of a large file. */
const isPointer = async (file: string): Promise<boolean> => {
  const handle = await open(file, 'r').catch(() => undefined)
  if (!handle) return false
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(pointerStart.length), 0, pointerStart.length, 0)
    return buffer.toString('latin1', 0, bytesRead) === pointerStart
  } finally {
    await handle.close()
  }
}

const pickled = /\.(bin|pt|pth|ckpt)$/

/**
 * The issue of a folder that has pointers of git-lfs or Python pickles in the place of weights, or is a pipeline of several models, with
 * the command that fixes the folder. Undefined for other folders.
 */
export const folderKindIssue = async (dir: string): Promise<Issue | undefined> => {
  const names: readonly string[] = await readdir(dir).catch(() => [])
  if (names.includes('model_index.json') && names.includes('vlm')) {
    const message = `${dir}: it is a pipeline (InternVL-U); give its folder ${join(dir, 'vlm')}, with the files of ${join(dir, 'processor')} copied into that folder`
    return issue('Pipeline', message, { file: dir })
  }
  const weights = names.filter((name) => name.endsWith('.safetensors'))
  for (const name of [...weights, 'tokenizer.model', 'tokenizer.json'])
    if (await isPointer(join(dir, name))) {
      const message = `${join(dir, name)}: it is a pointer of git-lfs, not the file itself; run "git lfs pull" in ${dir}, or download the model with "internvl download org/name"`
      return issue('GitLfsPointer', message, { file: join(dir, name) })
    }
  const pickle = names.find((name) => pickled.test(name) && !/^(training_args|optimizer|scheduler|rng_state)/.test(name))
  if (weights.length > 0 || pickle === undefined) return undefined
  const python = `from transformers import AutoModel; AutoModel.from_pretrained('${dir}', trust_remote_code=True, torch_dtype='auto').save_pretrained('${dir}-safetensors')`
  const message = `${join(dir, pickle)}: its weights are Python pickles, which can run code when they are opened; convert them where you trust them: python -c "${python}", and copy the tokenizer files`
  return issue('Pickle', message, { file: join(dir, pickle) })
}
