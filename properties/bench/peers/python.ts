import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../..', import.meta.url))

/** The Python environment that `npm run bench:setup` makes, out of version control. */
export const environment: string = join(root, '.venv')

/** What the benchmarks keep, out of version control: other programs' packages, converted files, histories. */
export const workshop: string = join(root, '.bench')

const interpreter = join(environment, 'bin', 'python')

/** The interpreter for comparisons: `BENCH_PYTHON`, or that of the environment. Throws a `RangeError` where there is none. */
export const python = (): string => {
  const chosen = process.env.BENCH_PYTHON ?? interpreter
  if (!existsSync(chosen))
    throw new RangeError(`${chosen}: no such file; \`npm run bench:setup\` makes the environment to compare with`)
  return chosen
}

/** The same with a package in it. Throws a `RangeError` that says how to install it where it is not. */
export const pythonWith = (name: string, how: string): string => {
  const chosen = python()
  if (spawnSync(chosen, ['-c', `import ${name}`]).status !== 0)
    throw new RangeError(`${chosen}: it has no package ${name}; ${how}`)
  return chosen
}

/** The interpreter with PEFT in it. */
export const peftPython = (): string => pythonWith('peft', '`npm run bench:setup` installs it')
