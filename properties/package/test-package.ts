import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const project = mkdtempSync(join(tmpdir(), 'internvl-package-'))

const run = (command: string, args: readonly string[], cwd = project): string => {
  process.stderr.write(`$ ${command} ${args.join(' ')}\n`)
  return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
}

const expect = (name: string, text: string, part: string): void => {
  if (!text.includes(part)) throw new Error(`${name}: expected ${JSON.stringify(part)} in ${JSON.stringify(text)}`)
  process.stderr.write(`ok: ${name}\n`)
}

const example = `import { answer, load } from 'internvl-tfjs'

const image = 'node_modules/internvl-tfjs/dist/generation/demo/shapes.png'
const internvl = await load()
const content = [{ type: 'image', path: image }, { type: 'text', text: 'What is at the top right?' }]
const { texts } = await answer(internvl, [[{ role: 'user', content }]])
console.log(texts[0])
`

const typed = example
  .replace(
    'import { answer, load }',
    "import { declarations, linear, type Module } from 'internvl-tfjs/lib'\nimport { internVL, readConfig } from 'internvl-tfjs/models'\nimport { answer, type ContentItem, load }"
  )
  .replace('const content =', 'const content: readonly ContentItem[] =')
  .concat(`const layer: Module = linear(2, 3)\nconsole.log(declarations(layer).length, typeof internVL, typeof readConfig)\n`)

/** Packs the package, installs the tarball in an empty project, and uses it there: JavaScript, TypeScript, command. */
try {
  run('npm', ['pack', '--silent', '--pack-destination', project], root)
  const tarball = readdirSync(project).find((name) => name.endsWith('.tgz'))!
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }))
  run('npm', ['install', '--silent', '--no-audit', '--no-fund', `./${tarball}`, 'typescript@6.0.3', '@types/node@20'])
  writeFileSync(join(project, 'example.js'), example)
  expect('plain JavaScript', run('node', ['example.js']), 'A black star.')
  writeFileSync(join(project, 'example.ts'), typed)
  // types of TensorFlow.js conflict with the WebGPU types of TypeScript 6, so libraries are skipped, as `tsc --init` does
  const strict = ['--strict', '--skipLibCheck', '--module', 'nodenext', '--target', 'es2022', '--types', 'node']
  run('npx', ['tsc', ...strict, '--outDir', 'built', 'example.ts'])
  expect('TypeScript', run('node', ['built/example.js']), 'A black star.\n2 function function')
  expect(
    'command',
    run('npx', [
      'internvl',
      'ask',
      '--image',
      'node_modules/internvl-tfjs/dist/generation/demo/shapes.png',
      'Describe the image.'
    ]),
    'a green circle at the top left'
  )
  const page = readFileSync(join(project, 'node_modules/internvl-tfjs/dist/generation/server/page/index.html'), 'utf8')
  expect('page', page, '<script type="module">')
  expect('help', run('npx', ['internvl', '--help']), 'doctor')
} finally {
  rmSync(project, { recursive: true, force: true })
}
