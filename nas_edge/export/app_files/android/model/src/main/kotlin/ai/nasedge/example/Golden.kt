package ai.nasedge.example

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Reads the arrays in `golden/`, NumPy files of version 1; only tests need it. */
object Golden {
    /** Values of a float32 file. */
    fun floats(content: ByteArray): FloatArray {
        val values = values(content)
        return FloatArray(values.remaining() / 4) { values.getFloat() }
    }

    /** Real values of a file in the type, scale and zero point of a model's output. */
    fun outputs(content: ByteArray, bytesPerValue: Int, scale: Float, zeroPoint: Int): FloatArray {
        val values = values(content)
        return FloatArray(values.remaining() / bytesPerValue) {
            when (bytesPerValue) {
                1 -> scale * (values.get() - zeroPoint)
                2 -> scale * (values.getShort() - zeroPoint)
                else -> values.getFloat()
            }
        }
    }

    private fun values(content: ByteArray): ByteBuffer {
        val buffer = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN)
        buffer.position(10 + buffer.getShort(8))
        return buffer
    }
}
