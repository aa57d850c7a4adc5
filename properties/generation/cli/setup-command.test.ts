import * as assert from 'node:assert/strict'
import { progressView } from '../../../generation/cli/commands/setup-command.js'
import type { SetupProgress } from '../../../lib/engines/install/build-engine.js'

/** A terminal of 80 columns that records its text. */
const terminal = () => {
  const written: string[] = []
  const done = (): boolean => true
  const output = {
    isTTY: true,
    columns: 80,
    write: (text: string) => {
      written.push(text)
      return true
    },
    on: done,
    once: done,
    removeListener: done,
    cursorTo: done,
    moveCursor: done,
    clearLine: done
  } as unknown as NodeJS.WriteStream
  return { output, text: (): string => written.join('') }
}

const escapes = new RegExp(`${String.fromCharCode(27)}\\[[0-9;?]*[A-Za-z]`, 'g')
const show = (isTerminal: boolean, steps: readonly SetupProgress[]): readonly string[] => {
  const { output, text } = terminal()
  const view = progressView(isTerminal, output)
  steps.forEach(view.show)
  view.end()
  return text()
    .replace(escapes, '\n')
    .split(/[\r\n]+/)
    .filter((line) => line !== '')
}

describe('progress of internvl setup', () => {
  const steps: readonly SetupProgress[] = [
    { step: 'download', item: 'tensorflow-cpu==2.18.0', done: 0, total: 0 },
    { step: 'download', item: 'tensorflow-cpu==2.18.0', done: 230e6, total: 230e6 },
    { step: 'unpack', item: 'nvidia_cuda_runtime_cu12 12.5.82', done: 0, total: 0 },
    { step: 'unpack', item: 'nvidia_cuda_runtime_cu12 12.5.82', done: 1809e6, total: 1809e6 },
    { step: 'unpack', item: 'a_wheel_with_a_very_long_name_that_does_not_fit_on_one_line 1.2.3', done: 1e6, total: 9999e6 },
    { step: 'compile', item: 'the kernels', done: 0, total: 0 },
    { step: 'compile', item: 'the kernels', done: 3, total: 24 },
    { step: 'compile', item: 'the kernels', done: 24, total: 24 }
  ]

  it('every bar fits 80 columns', () => {
    const lines = show(true, steps)
    for (const line of lines) assert.ok([...line].length <= 80, line)
    assert.ok(lines.some((line) => /unpacking nvidia_cuda_runtime_cu12 12\.5\.82 \[.{5,}\] 1809\/1809 MB/.test(line)))
    assert.ok(lines.some((line) => /compiling the kernels \[.{5,}\] 24\/24 files/.test(line)))
  })

  it('without a terminal, every step is one line', () => {
    assert.deepEqual(show(false, steps), [
      'internvl setup: downloading tensorflow-cpu==2.18.0',
      'internvl setup: unpacking nvidia_cuda_runtime_cu12 12.5.82',
      'internvl setup: unpacking a_wheel_with_a_very_long_name_that_does_not_fit_on_one_line 1.2.3',
      'internvl setup: compiling the kernels'
    ])
  })
})
