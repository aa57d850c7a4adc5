import * as assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { runProcess } from '../../../../lib/engines/install/run-process.js'
import { findTool } from '../../../../lib/engines/install/toolchain.js'
import { nvidiaMembers, readCudaRequirements, tensorflowMembers, unpack } from '../../../../lib/engines/install/unpack.js'
import { getOrThrow } from '../../../../lib/error.js'

const members = {
  'tensorflow/libtensorflow_cc.so.2': 'c'.repeat(10_000),
  'tensorflow/libtensorflow_framework.2.dylib': 'f',
  'tensorflow/include/tensorflow/c/eager/c_api.h': '//',
  'tensorflow/include/xla/tsl/c/tsl_status.h': '//',
  'tensorflow/include/tensorflow/core/unneeded.h': '//',
  'tensorflow/python/_pywrap.so': 'unneeded',
  'nvidia/cudnn/lib/libcudnn.so.9': 'n',
  'nvidia/cudnn/include/cudnn.h': 'unneeded',
  'nvidia/cuda_nvcc/bin/ptxas': 'p',
  'tensorflow-1.dist-info/METADATA': "Requires-Dist: nvidia-cudnn-cu12 ==9 ; extra == 'and-cuda'\n"
}
const zip = `
import json, sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as z:
    for name, text in json.loads(sys.argv[2]).items(): z.writestr(name, text)
`

describe('unpack', () => {
  it('unpacks the needed members of a real zip file, and counts the bytes', async function () {
    const python = await findTool('python', process.env)()
    if (E.isLeft(python)) return this.skip() // the wheels come by pip, which implies Python
    const folder = mkdtempSync(join(tmpdir(), 'internvl-unpack-'))
    const [wheel, target, options] = [join(folder, 'a.whl'), join(folder, 'out'), { env: process.env }]
    assert.ok(E.isRight(await runProcess(python.right, ['-c', zip, wheel, JSON.stringify(members)], options)()))
    const counts: (readonly number[])[] = []
    getOrThrow(
      await unpack(python.right, wheel, target, [...tensorflowMembers, ...nvidiaMembers], options, (...count) =>
        counts.push(count)
      )()
    )
    const files = (readdirSync(target, { recursive: true }) as string[]).filter((path) => statSync(join(target, path)).isFile())
    const needed = Object.entries(members).filter(([path, text]) => text !== 'unneeded' && !/unneeded|dist-info/.test(path))
    assert.deepEqual(files.sort(), needed.map(([path]) => path).sort())
    for (const [path, text] of needed) assert.equal(readFileSync(join(target, path), 'utf8'), text)
    assert.deepEqual(counts.at(-1), [10_007, 10_007])
    assert.deepEqual(getOrThrow(await readCudaRequirements(python.right, wheel, options)()), ['nvidia-cudnn-cu12==9'])
    rmSync(folder, { recursive: true })
  })
})
