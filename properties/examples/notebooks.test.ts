import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { orThrow } from '../../lib/error.js'
import { readImage } from '../../processors/image/image.js'
import { inFolder } from '../models/folders.js'
import { pngOf } from './notebooks/png.js'

/** The output of a cell, as notebooks store it. */
interface CellOutput {
  readonly output_type: string
  readonly text?: string
  readonly data?: Readonly<Record<string, string>>
}

const run = promisify(execFile)
const folder = fileURLToPath(new URL('./notebooks/', import.meta.url))

/** The missing program or package without which notebooks do not run; undefined where all are there. */
const missing = async (): Promise<string | undefined> => {
  const fails = (file: string, args: readonly string[]): Promise<boolean> =>
    run(file, args).then(
      () => false,
      () => true
    )
  if (await fails('deno', ['--version'])) return 'Deno is not installed; npm install --global deno'
  if (await fails('python3', ['-c', 'import jupyter_client, nbformat']))
    return 'jupyter_client is not installed; pip install jupyter_client nbformat'
  return undefined
}
const reason = await missing()

/** The outputs of the code cells of a notebook, run by Deno's kernel. */
const outputsOf = (name: string): Promise<readonly (readonly CellOutput[])[]> =>
  inFolder(async (jupyter) => {
    const kernel = join(jupyter, 'kernels', 'deno')
    await mkdir(kernel, { recursive: true })
    const argv = ['deno', 'jupyter', '--kernel', '--conn', '{connection_file}']
    await writeFile(join(kernel, 'kernel.json'), JSON.stringify({ argv, display_name: 'Deno', language: 'typescript' }))
    const options = { env: { ...process.env, JUPYTER_PATH: jupyter }, maxBuffer: 2 ** 26 }
    const { stdout } = await run('python3', [join(folder, 'execute.py'), join(folder, name)], options)
    return JSON.parse(stdout.slice(stdout.indexOf('[[')))
  })

/** All text that cells printed or returned. */
const textOf = (outputs: readonly (readonly CellOutput[])[]): string =>
  outputs
    .flat()
    .map(({ text, data }) => text ?? data?.['text/plain'] ?? '')
    .join('\n')

const imagesIn = (outputs: readonly (readonly CellOutput[])[]): number =>
  outputs.flat().filter(
    ({ data }) =>
      Buffer.from(data?.['image/png'] ?? '', 'base64')
        .subarray(1, 4)
        .toString() === 'PNG'
  ).length

describe('images in notebooks', () => {
  it('are PNG files that decode to the same pixels', () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 9 }),
        fc.nat(255),
        async (width, height, seed) => {
          const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * 37 + seed) % 256)
          const decoded = await orThrow(readImage(pngOf({ width, height, data })))
          assert.deepEqual([decoded.width, decoded.height, [...decoded.data]], [width, height, [...data]])
        }
      )
    ))
})

describe(`notebooks${reason === undefined ? '' : ` (skipped: ${reason})`}`, () => {
  before(function () {
    if (reason !== undefined) this.skip()
  })

  it('ask.ipynb runs; images, tiles and tensors show themselves', async () => {
    const outputs = await outputsOf('ask.ipynb')
    assert.match(textOf(outputs), /a green circle at the top left, a black star at the top right/)
    assert.match(textOf(outputs), /shape: \[1,16,160\]/)
    assert.match(textOf(outputs), /One/)
    assert.equal(imagesIn(outputs), 2)
  })

  it('gradients.ipynb runs; the gradient of the pixels shows itself as an image', async () => {
    const outputs = await outputsOf('gradients.ipynb')
    assert.match(textOf(outputs), /shape: \[112,112\]/)
    assert.equal(imagesIn(outputs), 2)
  })

  it('research.ipynb runs; a steering vector turns the answer, and the heat map shows itself as an image', async () => {
    const outputs = await outputsOf('research.ipynb')
    assert.match(textOf(outputs), /blue before 0\.0\d\d, after 0\.9/)
    assert.equal(imagesIn(outputs), 3)
  })

  it('fine-tuning.ipynb runs; the trained model gives the answers that were trained', async () => {
    const outputs = await outputsOf('fine-tuning.ipynb')
    assert.match(textOf(outputs), /A lonely circle\..*A crowd of squares\./s)
  })
})
